"""`make bench`: what sessiond costs beside a bare gRPC echo, both measured in turns in one run."""
