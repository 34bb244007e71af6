"""Managing callers: adding them, giving them new keys, and removing them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from sessiond.authority.parts import Parts
from sessiond.authority.results import AnswerSpec, EncodedAnswer
from sessiond.authority.retries import Retries
from sessiond.changes.callers import AddCaller, ChangeCertificates, RemoveCaller, RotateCaller
from sessiond.crypto.caller_keys import new_key
from sessiond.crypto.tokens import Token
from sessiond.domain.access import CallerRecord, Credential, CredentialKind, Grants
from sessiond.domain.call import Call, Caller
from sessiond.domain.immutable import immutable
from sessiond.domain.policy import PRESETS
from sessiond.domain.values import NOBODY, Millis, Revision
from sessiond.eventlog.work import Done, Unit
from sessiond.store.contract import StoreUnavailable

__all__ = ["CallerAdmin", "CallerRemoved", "CertificatesChanged", "KeyIssued"]

T = TypeVar("T")
R = TypeVar("R")
_REPLICA_SECONDS = 3.0
"""How long a change of a caller waits until every replica knows of it: less than clients wait."""


@immutable
class KeyIssued:
    """A caller with its new key, which is not kept; None: it got none.

    `before`: the caller before the change, if there was one.
    """

    caller: CallerRecord
    key: Token | None
    revision: Revision
    before: CallerRecord | None = None


@immutable
class CertificatesChanged:
    """A caller with the names that its certificate may have now. `before`: as it was before the change."""

    caller: CallerRecord
    revision: Revision
    before: CallerRecord


@immutable
class CallerRemoved:
    """A caller that was removed, as it was, and the revision of the change."""

    caller: CallerRecord
    revision: Revision


class CallerAdmin:
    """The use cases about callers. Who may use them is decided before.

    Each change also raises `Unauthenticated` or `Unavailable` if the caller that asks for it has changed since then.
    """

    def __init__(self, parts: Parts, retries: Retries) -> None:
        self._parts = parts
        self._retries = retries

    def call(self, caller: Caller, reason: str) -> Call:
        """Return a call about the authority itself, which belongs to no application."""
        return Call("", PRESETS["owasp-low"], caller, NOBODY, reason, has_client_context=False)

    async def list(self) -> Sequence[CallerRecord]:
        """Return all callers, by name."""
        return await self._parts.store.callers()

    async def add(
        self,
        call: Call,
        name: str,
        grants: Grants,
        spec: AnswerSpec[KeyIssued],
        *,
        with_key: bool = True,
        certificate_names: Sequence[str] = (),
    ) -> EncodedAnswer:
        """Add a caller, with a key and names in certificates. Raises `CallerExists`, `LastAdmin` and `InvalidField`."""
        key, credential = new_key(self._parts.entropy, self._parts.clock.now()) if with_key else (None, None)
        certificates = self._certificates(certificate_names)
        unit = AddCaller(name, grants, credential, call.cause, call.caller.version, certificates)
        return await self._everywhere(unit, lambda done: KeyIssued(done.result, key, done.revision), spec)

    async def rotate(self, call: Call, name: str, overlap: Millis, spec: AnswerSpec[KeyIssued]) -> EncodedAnswer:
        """Give a caller a new key; the others expire after the overlap. Raises `CallerNotFound`."""
        key, credential = new_key(self._parts.entropy, self._parts.clock.now())
        unit = RotateCaller(name, credential, overlap, call.cause, call.caller.version)
        return await self._everywhere(
            unit, lambda done: KeyIssued(done.result.after, key, done.revision, done.result.before), spec
        )

    async def change_certificates(
        self,
        call: Call,
        name: str,
        add: Sequence[str],
        remove: Sequence[str],
        spec: AnswerSpec[CertificatesChanged],
    ) -> EncodedAnswer:
        """Change by which names in a certificate a caller is known. Raises `CallerNotFound` and `InvalidField`."""
        unit = ChangeCertificates(name, self._certificates(add), tuple(remove), call.cause, call.caller.version)
        return await self._everywhere(
            unit, lambda done: CertificatesChanged(done.result.after, done.revision, done.result.before), spec
        )

    async def remove(self, call: Call, name: str, spec: AnswerSpec[CallerRemoved]) -> EncodedAnswer:
        """Remove a caller. Raises `CallerNotFound` and `LastAdmin`."""
        return await self._everywhere(
            RemoveCaller(name, call.cause, call.caller.version),
            lambda done: CallerRemoved(done.result, done.revision),
            spec,
        )

    async def _everywhere(self, unit: Unit[T], result: Callable[[Done[T]], R], spec: AnswerSpec[R]) -> EncodedAnswer:
        """Carry out a change, and wait until every replica knows it, at most as long as callers of this call do.

        So whoever is given a key may use it at once, at any replica.
        """
        answer = await self._retries.carry_out(unit, result, spec)
        follower = self._parts.follower
        if follower is not None:
            # The change is committed. A replica that does not follow refuses all callers until it does.
            with suppress(StoreUnavailable, TimeoutError):
                async with asyncio.timeout(_REPLICA_SECONDS):
                    await follower.wait_for_replicas()
        return answer

    def _certificates(self, names: Sequence[str]) -> tuple[Credential, ...]:
        now = self._parts.clock.now()
        return tuple(Credential(name, CredentialKind.CERTIFICATE, name.encode(), now) for name in names)
