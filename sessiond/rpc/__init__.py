"""The gRPC interface: decode messages to domain values, call the authority, encode the results as messages."""
