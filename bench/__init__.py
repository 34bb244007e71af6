"""`make bench`: the cost of sessiond compared with a bare gRPC echo server, measured alternately in one run."""
