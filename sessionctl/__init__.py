"""`sessionctl`: an authority in an operator's hands. A client like any other, and no part of the server."""

from sessionctl.root import main

__all__ = ["main"]
