"""Retries: carrying out a change once, however often its call is repeated."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from hashlib import sha256
from typing import TypeVar

from sessiond.authority.results import AnswerSpec, EncodedAnswer, RequestId
from sessiond.changes.idempotency import Idempotent, Recall, Retry
from sessiond.changes.login import restart_tolerances
from sessiond.changes.maintenance import Total
from sessiond.crypto.kept_answers import open_answer, seal_answer
from sessiond.crypto.tokens import KeyRing, OpenedToken, TokenForged, mac
from sessiond.domain.call import Call
from sessiond.domain.errors import InvalidField
from sessiond.domain.login import Login
from sessiond.domain.session import Session
from sessiond.domain.values import Millis
from sessiond.eventlog.journal import Journal
from sessiond.eventlog.work import Done, Unit

__all__ = ["Retries"]

T = TypeVar("T")
R = TypeVar("R")


def _no_session(_: object) -> Session | None:
    return None


class Retries:
    """Carries out changes. The answers of logins and of calls with a request id are kept for repeats."""

    def __init__(self, journal: Journal, keys: KeyRing) -> None:
        self._journal = journal
        self._keys = keys

    async def carry_out(
        self,
        unit: Unit[T],
        to_result: Callable[[Done[T]], R],
        spec: AnswerSpec[R],
        about: Callable[[T], Session | None] | None = None,
    ) -> EncodedAnswer:
        """Carry out a unit. Return its encoded answer or, for a repeated call, the first answer.

        `about` returns the session whose token was judged. Once that session has ended, a repeat is judged again.
        """
        retries = self._of_request(spec, while_live=about is not None)
        if not retries:
            return await self._journal.carry_out(unit, lambda done: EncodedAnswer(spec.encode(to_result(done))))
        once: Idempotent[T] = Idempotent(
            unit,
            retries,
            lambda done: spec.encode(to_result(done)),
            about or _no_session,
            always=isinstance(unit, Total),  # its events were recorded by earlier units
        )
        return (await self._journal.submit(once)).result

    async def log_in(
        self,
        unit: Unit[T],
        to_result: Callable[[Done[T]], R],
        spec: AnswerSpec[R],
        repeated: Retry,
        granted: Callable[[T], Session | None],
        *,
        while_live: bool,
    ) -> EncodedAnswer:
        """Carry out a login. A repeat gets the first answer even without a request id: see `repeated_login`."""
        retries = (*self._of_request(spec, while_live=while_live), repeated)
        once: Idempotent[T] = Idempotent(unit, retries, lambda done: spec.encode(to_result(done)), granted)
        return (await self._journal.submit(once)).result

    def recall(self, spec: AnswerSpec[R]) -> Callable[[], Awaitable[EncodedAnswer | None]]:
        """Return a function that looks for the first answer to a call, which may itself have replaced the token."""

        async def look() -> EncodedAnswer | None:
            retries = self._of_request(spec)
            return (await self._journal.submit(Recall(retries))).result if retries else None

        return look

    def repeated_login(self, call: Call, opened: OpenedToken, login: Login, *, elevates: bool) -> Retry:
        """Return what makes a login a repeat of another: the same token, subject and authentication within a tolerance.

        The kept answer is encrypted under a secret that only a holder of the presented token can derive. It is valid
        while the token that it issued is the session's current one.
        """
        secret = opened.bind(b"login")
        facts = (call.application, login.subject, login.level, login.methods, login.persistent, elevates)
        tolerance = Millis(max(call.policy.roll_tolerance, call.policy.lost_answer_tolerance))
        parameters = mac(secret, repr(facts).encode())
        # The parameters are part of the key: several subjects may log in with the same anonymous session's token.
        key = sha256(b"sessiond/login/v1\0" + secret + parameters).digest()
        return replace(
            self._retry(key, parameters, secret),
            keep_for=tolerance,
            while_current=True,
            on_repeat=lambda work, session: restart_tolerances(work, call, session),
        )

    def _of_request(self, spec: AnswerSpec[R], *, while_live: bool = False) -> tuple[Retry, ...]:
        request: RequestId | None = spec.request
        if request is None:
            return ()
        retry = self._retry(request.key, request.parameters, request.secret)
        return (replace(retry, keep_for=request.keep_for, while_live=while_live),)

    def _retry(self, key: bytes, parameters: bytes, secret: bytes) -> Retry:
        def seal(message: bytes) -> bytes:
            return seal_answer(self._keys, secret, message)

        def unseal(sealed: bytes) -> bytes:
            try:
                return open_answer(self._keys, secret, sealed)
            except TokenForged:
                remedy = "its answer was encrypted under a removed key; repeat the call with a new request id"
                raise InvalidField("request_id", remedy) from None

        return Retry(key, parameters, seal, unseal)
