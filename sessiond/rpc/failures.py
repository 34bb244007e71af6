"""Failures of ours: the log has the traceback, and the caller a number by which to find it."""

from __future__ import annotations

import os
from itertools import count

import structlog
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from sessiond.system.failures import log_failure

__all__ = ["failure_of"]

_RUN = os.urandom(3).hex()
"""What this process calls its failures. Process ids would be the same in all containers."""
_numbers = count(1)
_log = structlog.get_logger(__name__)


def failure_of(rpc: str, error: BaseException | None = None) -> status_pb2.Status:
    """Log an unexpected exception in a call of this method. Return the status for the caller, INTERNAL.

    `error` is the exception; None: the one that is being handled.

    Status and log line have the same number, which no other failure has: in the message, and as google.rpc.RequestInfo.
    """
    number = f"{_RUN}-{next(_numbers)}"
    # The text of an unexpected exception may only go to the log; gRPC would send it to the caller.
    log_failure(_log, "call failed", error, rpc=rpc, failure=number)
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.RequestInfo(request_id=number))
    text = f"internal error; the server's log has it as failure {number}"
    return status_pb2.Status(code=code_pb2.INTERNAL, message=text, details=[detail])
