"""The tests of `tests.rpc.test_sessions`, through a sidecar."""

from tests.rpc.test_sessions import *  # noqa: F403 - its tests and fixtures
