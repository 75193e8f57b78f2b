"""docs/contract.md as assertions over HTTP, the same ones on every stack."""
