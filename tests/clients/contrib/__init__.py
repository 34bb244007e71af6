"""The adapters for web frameworks, each against a real authority."""
