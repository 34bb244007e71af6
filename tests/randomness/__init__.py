"""The randomness of what the authority issues."""
