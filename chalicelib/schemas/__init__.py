"""Requests in, answers out: their shapes and limits, as the HTTP contract has them."""
