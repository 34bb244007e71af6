"""The tests of `tests.rpc.test_lifecycle`, through a sidecar."""

from tests.rpc.test_lifecycle import *  # noqa: F403 - its tests and fixtures
