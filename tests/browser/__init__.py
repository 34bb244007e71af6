"""The page script, in a real browser."""
