"""What every call has in common: who calls, for which application, about which client."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field

from sessiond.domain.immutable import immutable
from sessiond.domain.policy import Policy
from sessiond.domain.values import Cause, CauseKind, ClientContext

__all__ = ["Call", "Caller"]


@immutable
class Caller:
    """Who calls, as the authority knows it.

    name      the identity: the `actor` of everything that the call causes
    peer      where the call came from, as the transport names it
    metadata  what came with the call; it may hold credentials, so it is never shown
    """

    name: str
    peer: str = ""
    metadata: Sequence[tuple[str, str | bytes]] = field(default=(), repr=False)


@immutable
class Call:
    """One call: its application and policy, its caller, and what the caller saw of the client.

    `tells_client` is false if the call says nothing about a client. Saying that nothing was seen is another matter.
    """

    application: str
    policy: Policy
    caller: Caller
    client: ClientContext
    reason: str = ""
    tells_client: bool = True

    @property
    def cause(self) -> Cause:
        """The call as the cause of what it does."""
        return Cause(CauseKind.REQUEST, self.caller.name, self.reason)
