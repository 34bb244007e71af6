"""Sessions in Flask."""
