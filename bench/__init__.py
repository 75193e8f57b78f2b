"""Measurements, one in each module; `make bench` runs them."""
