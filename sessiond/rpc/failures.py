"""Failures of ours: the log has the traceback, and the caller the id of the call by which to find it."""

from __future__ import annotations

import structlog
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from sessiond.system.failures import log_failure
from sessiond.system.ongoing import ending_call

__all__ = ["failure_of"]

_log = structlog.get_logger(__name__)


def failure_of(rpc: str, error: BaseException | None = None) -> status_pb2.Status:
    """Log an unexpected exception in a call of this method. Return the status for the caller, INTERNAL.

    `error` is the exception; None: the one that is being handled.

    Status and log line have the id of the call: in the message, and as google.rpc.RequestInfo. A number is added to it
    for each further failure in the same call, such as a stream of validations.
    """
    found = ending_call().failure_id()
    # The text of an unexpected exception may only go to the log; gRPC would send it to the caller.
    log_failure(_log, "call failed", error, rpc=rpc, call_id=found)
    detail = any_pb2.Any()
    detail.Pack(error_details_pb2.RequestInfo(request_id=found))
    text = f"internal error; the server's log has it as call {found}"
    return status_pb2.Status(code=code_pb2.INTERNAL, message=text, details=[detail])
