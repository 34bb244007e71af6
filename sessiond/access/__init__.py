"""Access: who calls."""
