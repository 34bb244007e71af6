"""The dependencies for FastAPI."""
