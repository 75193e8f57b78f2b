"""One target of a start, from the claim to its end."""
