"""A history checker: random clients of several replicas, faults, and what must hold of everything that they saw.

The checker is outside the code that it checks: it sees what clients were answered, what subscribers received and the
table of events, and nothing else.
"""

import os

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # the processes that are started here use no gRPC of this one
