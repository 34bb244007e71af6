"""Tests of the service, through a sidecar. They run here with the `stub` of the folder above."""
