"""Attacks, each told as a story: a real client over gRPC, a real authority, and the events that tell of it."""
