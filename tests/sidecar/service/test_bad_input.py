"""The tests of `tests.rpc.test_bad_input`, through a sidecar."""

from tests.rpc.test_bad_input import *  # noqa: F403 - its tests and fixtures
