"""The package for Express: its own tests, run with Node."""
