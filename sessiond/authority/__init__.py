"""The use cases of the authority, in terms of domain values and independent of the transport."""
