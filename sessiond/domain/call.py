"""What every call has in common: the caller, the application, and the client that the call is about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field

from sessiond.domain.identity import ClientCertificate
from sessiond.domain.immutable import immutable
from sessiond.domain.policy import Policy
from sessiond.domain.values import Cause, CauseKind, ClientContext

__all__ = ["Call", "Caller"]


@immutable
class Caller:
    """The identity of a caller.

    name         recorded as the `actor` of every event that the call causes
    peer         address of the caller, in the transport's notation
    metadata     the metadata of the call; hidden from `repr` because it may hold credentials
    certificate  the certificate whose key the caller has proved to own, with mutual TLS; None: it has shown none
    """

    name: str
    peer: str = ""
    metadata: Sequence[tuple[str, str | bytes]] = field(default=(), repr=False)
    certificate: ClientCertificate | None = None


@immutable
class Call:
    """One call: its application and policy, its caller, and what the caller saw of the client.

    `has_client_context` is false if the call has no client context at all. An empty client context is different: with
    it the caller states that it saw nothing of the client.
    """

    application: str
    policy: Policy
    caller: Caller
    client: ClientContext
    reason: str = ""
    has_client_context: bool = True

    @property
    def cause(self) -> Cause:
        """Return the cause to record in the events of this call."""
        return Cause(CauseKind.REQUEST, self.caller.name, self.reason)
