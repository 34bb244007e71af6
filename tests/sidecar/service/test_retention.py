"""The tests of `tests.rpc.test_retention`, through a sidecar."""

from tests.rpc.test_retention import *  # noqa: F403 - its tests and fixtures
