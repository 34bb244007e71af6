"""`sessionctl`: the operator's command line. It is a client of the server like any other, and no part of the server."""

import os

# gRPC reads this variable when it is imported. Without it, gRPC writes lines of its own before our error message.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from sessionctl.root import main

__all__ = ["main"]
