"""What the API's Lambda functions and the worker share. Importing it does no I/O."""
