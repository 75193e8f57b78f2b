"""Puts the API on AWS, and the stack that it needs."""
