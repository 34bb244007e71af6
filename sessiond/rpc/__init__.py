"""The wire: messages in, domain values through the authority, messages out."""
