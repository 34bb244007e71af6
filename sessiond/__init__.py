"""sessiond: a session authority."""

import os

# gRPC reads it when it is imported, so it is set here, before everything else. Without it gRPC writes lines of its own
# ("E0000 00:00:...") to standard error, in front of the error that says what to do.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

__version__ = "0.1.0"
