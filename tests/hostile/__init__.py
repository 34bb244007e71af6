"""Hostile traffic on real sockets."""
