"""`sessionctl`: an authority in an operator's hands. A client like any other, and no part of the server."""

import os

# gRPC reads it when it is imported. Without it gRPC writes lines of its own in front of the error that says what to do.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from sessionctl.root import main

__all__ = ["main"]
