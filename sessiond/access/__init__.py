"""Access: identifying the callers."""
