"""What a call is to the audit log: an administrative action, a refused call, or ordinary use, which has no line."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import partial
from hashlib import sha256
from typing import Any

import grpc
from google.protobuf.text_format import MessageToString

from sessiond.access.audit import NO_AUDIT, Audit
from sessiond.access.callers import Callers
from sessiond.access.identity import AuthContext
from sessiond.domain.access import ANY_APPLICATION, Role, id_of_key
from sessiond.domain.audit import ACTIONS, AuditRecord, Trail
from sessiond.domain.call import Caller
from sessiond.domain.errors import AuthorityError, NotPermitted, Overloaded, Unauthenticated, Unavailable
from sessiond.rpc.authorization import applications_of, authorize, authorize_for, role_of
from sessiond.rpc.status import status_message
from sessiond.system.ongoing import call_id, this_call

__all__ = ["AuditedCalls"]

Handler = Callable[[Any, Caller], Awaitable[Any]]
_ADDRESS_AND_PORT = ("ipv4:", "ipv6:")
_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}
_UNWRITABLE = Unavailable(
    "the audit log cannot be written, and nobody may read other people's data without a line there; an operator must "
    "free its disk, or mend log.audit_file"
)
_MOST_RUNNING = 1_000
"""They go on when their callers hang up, so the limits on calls do not hold for them."""


class AuditedCalls:
    """Decides who may call, and writes the audit lines of calls.

    A call is administrative if its caller may make it only by the role `operator` or `admin`.
    """

    def __init__(self, audit: Audit = NO_AUDIT) -> None:
        self._audit = audit
        self._running: set[asyncio.Task[Any]] = set()

    def identify(
        self,
        name: str,
        callers: Callers,
        peer: str,
        metadata: Sequence[tuple[str, str | bytes]] | None,
        proved: AuthContext | None = None,
    ) -> Caller:
        """Return who makes a call. Raises `Unauthenticated`, which has a line, and `Unavailable`."""
        try:
            return callers.identify(peer, metadata, proved)
        except Unauthenticated:
            unknown = Caller("", callers.peer_of(peer, metadata), metadata or ())
            called = this_call(metadata).id
            record = AuditRecord(action=name, peer=unknown.peer, credential=_credential(unknown), call=called)
            self._audit.refused(replace(record, outcome="UNAUTHENTICATED"), _host_of(unknown.peer))
            raise

    def authorize(self, name: str, message: Any, caller: Caller) -> Role | None:
        """Return the role that makes a call administrative; None if it is ordinary use.

        Raises `NotPermitted`, which has a line.
        """
        try:
            authorize(name, message, caller)
        except NotPermitted:
            record = _record(name, message, caller, None)
            self._audit.refused(replace(record, outcome="PERMISSION_DENIED"), caller.name)
            raise
        return role_of(name, message, caller) if name in ACTIONS else None

    def authorize_for(self, name: str, application: str, caller: Caller) -> None:
        """Raise `NotPermitted`, which has a line, unless the caller may make a call that has no message."""
        try:
            authorize_for(name, application, caller)
        except NotPermitted:
            record = AuditRecord(
                actor=caller.name,
                credential=_credential(caller),
                action=name,
                application=application,
                peer=caller.peer,
                outcome="PERMISSION_DENIED",
                call=call_id(),
            )
            self._audit.refused(record, caller.name)
            raise

    def begin(self, name: str, message: Any, caller: Caller, role: Role) -> None:
        """Write the line of a stream. Raises `Unavailable` if that is impossible."""
        if not self._audit.record(replace(_record(name, message, caller, role), outcome="STARTED")):
            raise _UNWRITABLE

    async def carry_out(self, name: str, message: Any, caller: Caller, role: Role, handler: Handler) -> Any:
        """Carry out a call with one response, write its line, and return the response.

        Raises `Overloaded` if too many are under way, what the handler raises, and `Unavailable` if a line about
        reading cannot be written. A caller that hangs up does not prevent the line: what it has asked for may be
        committed already.
        """
        if len(self._running) >= _MOST_RUNNING:
            raise Overloaded("too many calls of operators and admins are under way; try again soon")
        task = asyncio.create_task(self._carried_out(name, message, caller, role, handler), name=f"audited: {name}")
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    async def finish(self) -> None:
        """Wait for the lines of calls whose callers have hung up. The calls must be about to end."""
        while self._running:
            await asyncio.wait(self._running)

    async def _carried_out(self, name: str, message: Any, caller: Caller, role: Role, handler: Handler) -> Any:
        action, trail = ACTIONS[name], Trail()
        write = partial(self._write, _record(name, message, caller, role), trail)
        try:
            response = await handler(message, replace(caller, trail=trail))
        except AuthorityError as error:
            write(_outcome_of(error))
            raise
        except asyncio.CancelledError:
            write("CANCELLED")
            raise
        except Exception:
            write("INTERNAL")
            raise
        if action.counts:
            trail.count = len(getattr(response, action.counts))
        if not write("REPEATED" if trail.is_repeat else "OK") and action.event is None:
            raise _UNWRITABLE
        return response

    def _write(self, record: AuditRecord, trail: Trail, outcome: str) -> bool:
        return self._audit.record(
            replace(record, before=trail.before, after=trail.after, count=trail.count, outcome=outcome)
        )


def _outcome_of(error: AuthorityError) -> str:
    """Return the name of the code that a caller gets for an error."""
    return _NAMES[status_message(error).code]


def _record(name: str, message: Any, caller: Caller, role: Role | None) -> AuditRecord:
    """Return what is known about a call before it is carried out."""
    fields = message.DESCRIPTOR.fields_by_name
    client = message.client if "client" in fields else None
    request_id = getattr(message, "request_id", "")
    return AuditRecord(
        actor=caller.name,
        credential=_credential(caller),
        role="none" if role is not None and not caller.version else role or "",
        action=name,
        application=", ".join(sorted(applications_of(name, message))) or ANY_APPLICATION,
        target=_target(message),
        peer=caller.peer,
        client_ip="" if client is None else client.ip_address,
        client_agent="" if client is None else client.user_agent,
        reason=getattr(message, "reason", ""),
        request=sha256(request_id.encode()).hexdigest()[:16] if request_id else "",
        call=call_id(),
    )


def _target(message: Any) -> str:
    """Return what a request names: a session, caller, source, subject, sealing key, or the conditions of a filter."""
    fields, parts = message.DESCRIPTOR.fields_by_name, []
    if "session" in fields:
        by_id = message.session.WhichOneof("reference") == "session_id"
        parts.append(f"session {message.session.session_id}" if by_id else "session of a token")
    elif "token" in fields:
        parts.append("session of a token" if message.token else "no token")
    for field, word in (("name", "caller"), ("source", "source"), ("subject", "subject"), ("fingerprint", "key")):
        if field in fields and (value := getattr(message, field)):
            parts.append(f"{word} {value}")
    if "filter" in fields and (words := MessageToString(message.filter, as_one_line=True).strip()):
        parts.append(f"filter {words}")
    if "except_session_id" in fields and message.except_session_id:
        parts.append(f"all but session {message.except_session_id}")
    if "whole_application" in fields and message.whole_application:
        parts.append("whole application")
    return ", ".join(parts)


def _credential(caller: Caller) -> str:
    """Return which credential a call was made with, as far as it can be told without showing a secret."""
    for key, value in caller.metadata:
        if key == "authorization" and isinstance(value, str) and (key_id := id_of_key(value.rpartition(" ")[2])):
            return f"key {key_id}"
    return "" if caller.certificate is None else f"certificate {caller.certificate.fingerprint[:32]}"


def _host_of(peer: str) -> str:
    """Return a peer without its port: each connection has another one."""
    return peer.rpartition(":")[0] if peer.startswith(_ADDRESS_AND_PORT) else peer
