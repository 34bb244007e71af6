"""The authority: the entry point to its use cases."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from sessiond.authority.backup import Backups
from sessiond.authority.callers import CallerAdmin
from sessiond.authority.data import SessionData
from sessiond.authority.following import Following
from sessiond.authority.key_ring import KeyRingAdmin
from sessiond.authority.logins import Logins
from sessiond.authority.parts import Parts
from sessiond.authority.policy_book import Origins
from sessiond.authority.reading import Reading
from sessiond.authority.results import AnswerSpec, EncodedAnswer
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

_MAX_REASON = 256  # characters; the limit of the proto


@immutable
class Authority:
    """All use cases of one authority process over one store.

    Every change takes an `AnswerSpec`. If that has a request id, the change is carried out only once, however often the
    call is repeated, and the result is an `EncodedAnswer`: the encoded message of the first answer.
    """

    parts: Parts
    validation: Validation
    retries: Retries
    logins: Logins
    sessions: Sessions
    data: SessionData
    reading: Reading
    following: Following
    callers: CallerAdmin
    key_ring: KeyRingAdmin
    backups: Backups

    def call(self, application: str, caller: Caller, client: ClientContext | None, reason: str = "") -> Call:
        """Return a call with the policy of its application. Raises `InvalidField` if the application is unknown."""
        policy = self.parts.policies.get(application)
        if policy is None:
            # The names of other applications are not everyone's business.
            configured = (
                ", ".join(sorted(filter(caller.may_see, self.parts.policies))) or "none that you have a role for"
            )
            raise InvalidField("application", f"unknown application {shown(application)} (configured: {configured})")
        return Call(application, policy, caller, client or NOBODY, reason, client is not None)

    def now(self) -> Instant:
        """Return the authority's current time."""
        return self.parts.clock.now()

    async def clear_lock(self, call: Call, source: str, spec: AnswerSpec[Revision]) -> Revision | EncodedAnswer:
        """Unlock a source. Raises `LockNotFound`."""
        unit = self.parts.gate.unlock(call, source)
        return await self.retries.carry_out(unit, lambda done: done.revision, spec)

    async def wait_for_caches(self) -> None:
        """Wait until everything that is committed now holds on every replica and in every cache.

        Raises `Unavailable` if the store does not say which replicas there are.
        """
        caches, follower = self.parts.caches, self.parts.follower
        if follower is not None:
            # Another replica may have made the change: it must be published here before the caches are asked for it.
            await follower.catch_up()
            await asyncio.gather(caches.wait_for(self.parts.feed.revision), follower.wait_for_replicas())
        else:
            await caches.wait_for(self.parts.feed.revision)

    async def change_policies(self, policies: Mapping[str, Policy], origins: Origins) -> dict[str, str]:
        """Replace all policies, with immediate effect for every session. Return what changed, by application.

        Existing sessions keep their deadlines until the next activity or authentication sets them.
        """
        changed = self.parts.policies.replace(policies, origins)
        for application, change in changed.items():
            cause = Cause(CauseKind.CONFIGURATION, reason=change[:_MAX_REASON])
            await self.parts.journal.submit(RecordOther(EventType.POLICY_CHANGED, application, cause))
        return changed
