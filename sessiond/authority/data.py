"""Reading and changing session data."""

from __future__ import annotations

from collections.abc import Mapping

from sessiond.authority.parts import Parts
from sessiond.authority.question import DataRequest, Question
from sessiond.authority.reading import Reading
from sessiond.authority.results import AnswerSpec, ChangeResult, EncodedAnswer, SessionRef, ValidationResult
from sessiond.authority.retries import Retries
from sessiond.authority.validation import Validation
from sessiond.changes.data import UpdateData
from sessiond.changes.judging import Outcome
from sessiond.crypto.tokens import Token
from sessiond.domain.call import Call
from sessiond.domain.judge import Verdict
from sessiond.domain.values import SessionId, VersionedData
from sessiond.eventlog.work import Done

__all__ = ["SessionData"]

_ALL = DataRequest()


class SessionData:
    """Reads and changes the data of sessions."""

    def __init__(self, parts: Parts, validation: Validation, retries: Retries, reading: Reading) -> None:
        self._parts = parts
        self._validation = validation
        self._retries = retries
        self._reading = reading

    async def read(
        self, call: Call, named: SessionRef, wanted: DataRequest = _ALL
    ) -> tuple[Verdict, VersionedData | None]:
        """Return the verdict on the session and, if it is live, the requested part of its data with the version.

        Raises `SessionNotFound` for an unknown id, and `DataUnreadable` if a requested value cannot be read.
        """
        if isinstance(named, Token):
            result = await self._validation.validate(Question(call, named, passive=True, data=wanted))
            return result.verdict, result.data
        while True:
            verdict, session = await self._reading.get(call, named)
            if verdict is not Verdict.VALID or session is None:
                return verdict, None
            stored = await self._parts.store.data(session.id)
            verdict, session = await self._reading.get(call, named)
            # If the session's data changed during the read, read it again.
            if verdict is Verdict.VALID and session is not None and session.data_version == stored.version:
                return verdict, wanted.of(stored)

    async def update(
        self,
        call: Call,
        named: SessionRef,
        changed: Mapping[str, bytes | None],
        spec: AnswerSpec[ChangeResult],
        *,
        expected_version: int | None = None,
        wanted: DataRequest | None = None,
    ) -> ChangeResult | EncodedAnswer:
        """Set (bytes) and delete (None) keys. The result has the data after the change, as far as `wanted` says.

        Raises `VersionMismatch`, `SessionNotFound`, and `InvalidField` if the data would be too large.
        """
        if isinstance(named, SessionId):
            unit = UpdateData(call, named, changed, expected_version, wanted is not None)
        else:
            opened = await self._validation.accept(call, named, self._retries.recall(spec))
            if isinstance(opened, EncodedAnswer):
                return opened
            if isinstance(opened, ValidationResult):
                return ChangeResult(opened.verdict, None, self._parts.feed.revision)
            unit = UpdateData(call, opened.presented, changed, expected_version, wanted is not None)

        def to_result(done: Done[Outcome]) -> ChangeResult:
            outcome, data = done.result, None
            if wanted is not None and outcome.data is not None and outcome.session is not None:
                version = outcome.session.data_version
                if not wanted.newer_than or version > wanted.newer_than:
                    data = wanted.of(VersionedData(outcome.data, version))
            return ChangeResult(outcome.verdict, outcome.session, done.revision, data=data)

        return await self._retries.carry_out(unit, to_result, spec, lambda outcome: outcome.session)
