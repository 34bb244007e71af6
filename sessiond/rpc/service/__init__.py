"""The service, by subject: each method decodes, asks the authority, and encodes. No policy lives here."""
