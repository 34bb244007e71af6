"""Tests of the interceptors for gRPC servers."""
