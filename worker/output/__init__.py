"""What a command prints: read from the engine, redacted, spooled, uploaded."""
