"""The service, one module per topic. Each method decodes, calls the authority and encodes; it makes no decisions."""
