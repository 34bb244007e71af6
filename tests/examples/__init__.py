"""The examples for web frameworks, played through."""
