"""The recorder: makes calls for clients, and keeps what they asked, when, and what they learned."""

from __future__ import annotations

import time
import uuid
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from random import Random

from sessiond_client import (
    AsyncClient,
    ConcurrencyLimitReached,
    Created,
    Revoked,
    Rolled,
    SessiondError,
    Token,
    Verdict,
)
from tests.consistency.cluster import Cluster
from tests.consistency.history import Kind, Operation, Outcome, Validated

__all__ = ["Held", "Recorder"]

_ATTEMPTS = 3
_AWAITED_TIMEOUT = 17.0
"""Seconds; longer than a server waits for replicas that do not confirm."""
Answer = Created | Rolled | Revoked


@dataclass(slots=True)
class Held:
    """A session as its clients know it: its newest token, and the epoch of that (see `Validated`)."""

    session: str
    application: str
    subject: str
    token: Token
    epoch: int
    older: list[tuple[Token, int]] = field(default_factory=list)
    ended: bool = False

    def take(self, token: Token, epoch: int) -> None:
        """Use another token from now on."""
        self.older = [*self.older[-2:], (self.token, self.epoch)]
        self.token, self.epoch = token, epoch


class Recorder:
    """Makes calls, and records them. `timeout` is that of each call in seconds, except for awaited revocations.

    tokens  the consistency tokens of the newest changes, each with the number of its operation
    """

    def __init__(self, cluster: Cluster, dice: Random, timeout: float = 3.0) -> None:
        self.operations: list[Operation] = []
        self.validations: list[Validated] = []
        self.tokens: deque[tuple[int, str]] = deque(maxlen=30)
        self._cluster = cluster
        self._dice = dice
        self._timeout = timeout
        self._count = 0
        self._answered = 0

    @property
    def count(self) -> int:
        """Return the number of operations and validations that were answered so far."""
        return self._answered

    def other(self, replica: int) -> int:
        """Return another replica."""
        others = [one.number for one in self._cluster.replicas if one.number != replica]
        return self._dice.choice(others)

    async def create(self, client: str, replica: int, application: str, subject: str) -> Held | None:
        """Open a session. Its label tells the operation, because a creation has no reason."""
        operation = self._begin(client, replica, Kind.CREATE, application, subject)
        labels = {"operation": str(operation.number)}
        made, answer = await self._attempts(
            operation,
            lambda at, secret: at.create(subject=subject, labels=labels, request_id=secret, timeout=self._timeout),
        )
        if not isinstance(answer, Created):
            self._end(made)
            return None
        session = answer.session
        self._end(
            replace(
                made,
                applied=True,
                session=session.session_id,
                generation=session.generation,
                evicted=answer.evicted_session_ids,
            ),
            answer.consistency_token,
        )
        return Held(session.session_id, application, subject, answer.token, session.generation)

    async def login(self, client: str, replica: int, held: Held, subject: str) -> bool:
        """Log a subject in, with the session's newest token."""
        operation = self._begin(client, replica, Kind.LOGIN, held.application, subject, held.session)
        token, reason = held.token, _reason(operation)
        made, answer = await self._attempts(
            operation,
            lambda at, secret: at.authenticate(token, subject, reason=reason, request_id=secret, timeout=self._timeout),
        )
        if self._replaced(made, answer, held):
            held.subject = subject
            return True
        return False

    async def roll(self, client: str, replica: int, held: Held) -> bool:
        """Replace the session's newest token."""
        operation = self._begin(client, replica, Kind.ROLL, held.application, held.subject, held.session)
        token, reason = held.token, _reason(operation)
        made, answer = await self._attempts(
            operation, lambda at, secret: at.roll(token, reason=reason, request_id=secret, timeout=self._timeout)
        )
        return self._replaced(made, answer, held)

    async def revoke(self, client: str, replica: int, held: Held, *, waits: bool) -> bool:
        """End a session, by its id. Return whether it has ended for certain."""
        operation = self._begin(client, replica, Kind.REVOKE, held.application, held.subject, held.session)
        operation = replace(operation, waits=waits)
        reason, timeout = _reason(operation), _AWAITED_TIMEOUT if waits else self._timeout
        made, answer = await self._attempts(
            operation,
            lambda at, secret: at.revoke(
                session_id=held.session, reason=reason, wait_for_caches=waits, request_id=secret, timeout=timeout
            ),
        )
        if not isinstance(answer, Revoked):
            self._end(made)
            return False
        ended = answer.revoked or answer.verdict is Verdict.REVOKED
        held.ended = held.ended or ended
        self._end(replace(made, applied=ended), answer.consistency_token)
        return ended

    async def validate(
        self, client: str, replica: int, held: Held, at_least: tuple[int, str] | None = None, *, older: bool = False
    ) -> str:
        """Validate the session's newest token, or an older one. Return the verdict; empty if there is no answer."""
        token, epoch = self._dice.choice(held.older) if older and held.older else (held.token, held.epoch)
        number, text = at_least or (None, "")
        made = Validated(
            client=client,
            replica=replica,
            invoked=time.monotonic(),
            returned=0.0,
            session=held.session,
            epoch=epoch,
            at_least=number,
        )
        try:
            answer = await self._cluster.client(replica, held.application).validate(
                token, at_least=text, timeout=self._timeout
            )
        except SessiondError as error:
            self.validations.append(replace(made, returned=time.monotonic(), error=f"{error.status}: {error}"))
            return ""
        self._answered += 1
        generation = 0 if answer.session is None else answer.session.generation
        self.validations.append(
            replace(made, returned=time.monotonic(), verdict=answer.verdict.value, generation=generation)
        )
        if answer.renewed_token is not None and token is held.token:
            held.take(answer.renewed_token, epoch)
        return answer.verdict.value

    def _begin(
        self, client: str, replica: int, kind: Kind, application: str, subject: str, session: str = ""
    ) -> Operation:
        self._count += 1
        return Operation(
            number=self._count,
            client=client,
            replica=replica,
            kind=kind,
            invoked=time.monotonic(),
            returned=0.0,
            outcome=Outcome.UNKNOWN,
            application=application,
            subject=subject,
            session=session,
        )

    async def _attempts(
        self, operation: Operation, call: Callable[[AsyncClient, str], Awaitable[Answer]]
    ) -> tuple[Operation, Answer | None]:
        """Make a call. If its outcome is unknown, perhaps repeat it under the same request id on another replica."""
        secret = str(uuid.UUID(int=self._dice.getrandbits(128), version=4))
        replica, is_unknown, said = operation.replica, False, ""
        for _ in range(_ATTEMPTS):
            try:
                answer = await call(self._cluster.client(replica, operation.application), secret)
                return replace(operation, replica=replica, outcome=Outcome.OK), answer
            except ConcurrencyLimitReached as limit:
                return replace(operation, replica=replica, outcome=Outcome.OK, error=str(limit)), None
            except SessiondError as error:
                is_unknown = is_unknown or error.outcome_unknown
                said = f"{error.status}: {error}"
            if not is_unknown or self._dice.random() < 0.4:
                break
            replica = self.other(replica)
        outcome = Outcome.UNKNOWN if is_unknown else Outcome.FAILED
        return replace(operation, replica=replica, outcome=outcome, error=said), None

    def _replaced(self, made: Operation, answer: Answer | None, held: Held) -> bool:
        if not isinstance(answer, Rolled) or answer.token is None or answer.session is None:
            self._end(made)
            return False
        generation = answer.session.generation
        held.take(answer.token, generation)
        self._end(
            replace(made, applied=True, generation=generation, evicted=answer.evicted_session_ids),
            answer.consistency_token,
        )
        return True

    def _end(self, made: Operation, consistency_token: str = "") -> None:
        self.operations.append(replace(made, returned=time.monotonic()))
        self._answered += made.outcome is Outcome.OK
        if consistency_token:
            self.tokens.append((made.number, consistency_token))


def _reason(operation: Operation) -> str:
    return f"operation {operation.number}"
