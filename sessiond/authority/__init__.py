"""The use cases of the authority, in domain values, whatever carried them here."""
