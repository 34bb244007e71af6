"""The exit codes of every command."""

from __future__ import annotations

from enum import IntEnum

__all__ = ["Exit"]


class Exit(IntEnum):
    """How a command ended. The same mistake has the same code in every command."""

    DONE = 0
    """The command did what it was asked."""
    FAILED = 1
    """The server refused or failed, for example because there is no such session; or the command failed locally."""
    USAGE = 2
    """The command line or one of its values is wrong, whether sessionctl or the server says so."""
    NOT_VALID = 3
    """`validate`: the verdict is not VALID."""
    UNREACHABLE = 4
    """There is no sessiond server at the target, or it did not answer in time."""
    STALE = 5
    """`verify-caches`: a cache accepted a revoked session for longer than its bound."""
    MISCONFIGURED = 78
    """The configuration cannot be used: EX_CONFIG of sysexits.h. `sessiond serve` exits with it too."""
    INTERRUPTED = 130
    """Interrupted with Ctrl-C."""
