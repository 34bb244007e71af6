"""The authority: its use cases under one name, and what each call has in common."""

from __future__ import annotations

from collections.abc import Mapping

from sessiond.authority.data import SessionData
from sessiond.authority.logins import Logins
from sessiond.authority.parts import Parts
from sessiond.authority.policy_book import Origins
from sessiond.authority.reading import Reading
from sessiond.authority.results import Kept, Reply
from sessiond.authority.retries import Retries
from sessiond.authority.sessions import Sessions
from sessiond.authority.validation import Validation
from sessiond.changes.maintenance import RecordOther
from sessiond.domain.call import Call, Caller
from sessiond.domain.errors import InvalidField, shown
from sessiond.domain.event import EventType
from sessiond.domain.immutable import immutable
from sessiond.domain.policy import Policy
from sessiond.domain.values import NOBODY, Cause, CauseKind, ClientContext, Instant, Revision

__all__ = ["Authority"]

_REASON = 256  # characters, as the contract has it


@immutable
class Authority:
    """The deciding server of one process over one store.

    A change takes a `Reply`. If that has a request id, the change is carried out once however often it is asked for,
    and what comes back is `Kept`: the bytes of the first answer.
    """

    parts: Parts
    validation: Validation
    retries: Retries
    logins: Logins
    sessions: Sessions
    data: SessionData
    reading: Reading

    def call(self, application: str, caller: Caller, client: ClientContext | None, reason: str = "") -> Call:
        """What a call has in common with every other. Raises `InvalidField` for an application that does not exist."""
        policy = self.parts.policies.get(application)
        if policy is None:
            configured = ", ".join(sorted(self.parts.policies))
            raise InvalidField("application", f"unknown application {shown(application)} (configured: {configured})")
        return Call(application, policy, caller, client or NOBODY, reason, client is not None)

    def now(self) -> Instant:
        """The authority's time."""
        return self.parts.clock.now()

    async def clear_lock(self, call: Call, source: str, reply: Reply[Revision]) -> Revision | Kept:
        """Unlock a source. Raises `LockNotFound`."""
        unit = self.parts.gate.unlock(call, source)
        return await self.retries.carry_out(unit, lambda done: done.revision, reply)

    async def change_policies(self, policies: Mapping[str, Policy], origins: Origins) -> dict[str, str]:
        """Put other policies in force, at once and for every session; what changed, by application.

        Deadlines that sessions have already stay as they are until activity or authentication sets them again.
        """
        changed = self.parts.policies.replace(policies, origins)
        for application, what in changed.items():
            cause = Cause(CauseKind.CONFIGURATION, reason=what[:_REASON])
            await self.parts.journal.submit(RecordOther(EventType.POLICY_CHANGED, application, cause))
        return changed
