"""Metrics in the form of Prometheus: what the parts of a server count, read when somebody asks."""
