"""A model of appjobs in virtual time: what limits it, and what it costs. `make simulate` runs it."""
