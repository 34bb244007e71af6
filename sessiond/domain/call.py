"""What every call has in common: the caller, the application, and the client that the call is about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field

from sessiond.domain.access import ANY_APPLICATION, EVERYTHING, Grants
from sessiond.domain.audit import Trail
from sessiond.domain.identity import ClientCertificate
from sessiond.domain.immutable import immutable
from sessiond.domain.policy import Policy
from sessiond.domain.values import Cause, CauseKind, ClientContext, Instant

__all__ = ["FORWARDED_KEY", "PEER_KEY", "Call", "Caller"]

PEER_KEY = "sessiond-peer"
"""The metadata in which a worker says on which connection it received a call. Nobody else may set it."""
FORWARDED_KEY = "sessiond-forwarded"
"""The metadata with which a sidecar marks each call that it forwards: the certificate of the connection is the
sidecar's, and says nothing about who calls. Whoever sets it only loses what a certificate proves."""


@immutable
class Caller:
    """The identity of a caller.

    name         recorded as the `actor` of every event that the call causes
    peer         address of the caller, in the transport's notation
    metadata     the metadata of the call; hidden from `repr` because it may hold credentials
    grants       what it may do
    version      differs after each change of the caller, so that nothing that was kept for it outlives a change
    certificate  the certificate whose key the caller has proved to own, with mutual TLS; None: it has shown none, or
                 the call was forwarded by a sidecar
    until        when what proved the caller expires; its streams end then. None: it does not expire
    trail        what the call says for its line in the audit log; None: it has none
    """

    name: str
    peer: str = ""
    metadata: Sequence[tuple[str, str | bytes]] = field(default=(), repr=False)
    grants: Grants = EVERYTHING
    version: int = 0
    certificate: ClientCertificate | None = None
    until: Instant | None = None
    trail: Trail | None = field(default=None, repr=False, compare=False)

    def may_see(self, application: str) -> bool:
        """Return whether the caller may know of an application: it has a role for it."""
        return any(granted in (application, ANY_APPLICATION) for granted, _ in self.grants)


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
