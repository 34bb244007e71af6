"""sessiond: a session authority."""

__version__ = "0.1.0"
