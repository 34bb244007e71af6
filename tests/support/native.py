"""Tests that cannot pass on the native transport, each with its reason."""

from __future__ import annotations

__all__ = ["NOT_ON_NATIVE"]

NOT_ON_NATIVE = {
    "tests/rpc/test_arrivals.py::test_every_method_is_bounded": (
        "the package receives messages by itself, and offers no limit on those that are incomplete; "
        "test_unfinished_messages_keep_nobody_waiting in tests/rpc/test_native.py has what holds instead"
    ),
    "tests/metrics/test_metrics.py::test_every_metric_is_in_the_reference": "the native transport has no TLS",
    "tests/rpc/test_follow.py::test_too_many_streams": (
        "forwarded streams count as those of one connection, so that two caches cannot use two places"
    ),
    "tests/rpc/test_stream_validations.py::test_streams_are_bounded": (
        "forwarded streams count as those of one connection, which may have half of the places"
    ),
}
"""The reason for each test, by its node id without parameters. `pytest --transport native` skips these."""
