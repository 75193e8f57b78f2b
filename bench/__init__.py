"""Measurements; each is a module of its own, run by `make bench`."""
