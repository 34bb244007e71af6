"""Calls that judge tokens, and the call that issues companion tokens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, TypeVar

from sessiond.authority.authority import Authority
from sessiond.authority.question import Question
from sessiond.authority.results import ValidationResult
from sessiond.crypto.tokens import OpenedToken
from sessiond.domain.call import Call, Caller
from sessiond.domain.errors import DataUnreadable, InvalidField
from sessiond.rpc import cookies, decode, encode
from sessiond.rpc.fast_path import FastPath, RepeatedAnswer
from sessiond.rpc.giving_way import UnaryCalls
from sessiond.rpc.pages import PAGE_BYTES
from sessiond.rpc.response_cache import Refusals, SessionMessages
from sessiond.rpc.service.calls import Calls
from sessiond.system.ongoing import note
from sessiond_stubs.v1 import session_authority_pb2 as pb

__all__ = ["MAX_BATCH", "ValidationService"]

MAX_BATCH = 1000
"""How many requests a batch may have."""
_SLICE = 32
"""How many requests of a batch are worked on before other calls have their turn."""
T = TypeVar("T")


class ValidationService:
    """The calls ValidateSession, ValidateSessions and IssueCompanionToken. Batches give way to the unary calls."""

    def __init__(
        self,
        calls: Calls,
        authority: Authority,
        fast_path: FastPath,
        sessions: SessionMessages,
        refusals: Refusals,
        unary_calls: UnaryCalls,
    ) -> None:
        self._calls = calls
        self._authority = authority
        self._fast_path = fast_path
        self._sessions = sessions
        self._refusals = refusals
        self._unary_calls = unary_calls

    async def ValidateSession(self, request: pb.ValidateSessionRequest, caller: Caller) -> pb.ValidateSessionResponse:
        """Judge one token."""
        question = self.question(request, caller)
        note(application=question.call.application)
        answer = await self._authority.validation.validate(question)
        self._fast_path.remember(request, question, answer)
        return self.response(question.call, answer)

    def fast_path(self, caller: Caller, raw: bytes) -> pb.ValidateSessionResponse | None:
        """Return the plain response to a repeated ValidateSession; None if the ordinary path must decide."""
        answer = self._fast_path.answer(caller, raw)
        return None if answer is None else self._plain_validation(answer)

    def repeatable(self, caller: Caller, raw: bytes) -> tuple[pb.ValidateSessionResponse, RepeatedAnswer | None] | None:
        """As `fast_path`; return also what can be asked again without the message, if there is anything."""
        found = self._fast_path.repeatable(caller, raw)
        return None if found is None else (self._plain_validation(found[0]), found[1])

    def answer_repeated(self, request: pb.ValidateSessionRequest, caller: Caller, responses: Any) -> bool:
        """Add the plain response to a repeated request of a batch, and return whether there is one."""
        answer = self._fast_path.answer(caller, request.SerializeToString())
        if answer is None:
            return False
        self._fill_plain(responses.add(), answer)
        return True

    async def ValidateSessions(
        self, request: pb.ValidateSessionsRequest, caller: Caller
    ) -> pb.ValidateSessionsResponse:
        """Judge many tokens independently of each other."""
        if len(request.requests) > MAX_BATCH:
            raise InvalidField("requests", f"has {len(request.requests)} entries; at most {MAX_BATCH} are allowed")
        # All questions are checked before any is judged: an invalid call must change nothing.
        questions = []
        async for number, one in self._in_slices(request.requests):
            questions.append(self._question_of_batch(number, one, caller))
        for position in {question.at_least for question in questions}:
            await self._authority.reading.wait_for(position)
        answers = await self._answers(questions)
        response, size = pb.ValidateSessionsResponse(), 0
        async for number, question in self._in_slices(questions):
            answer = answers[number]
            message = self.response(question.call, answer)
            size += message.ByteSize()
            if size > PAGE_BYTES and answer.data is not None:
                # The batch would not fit into a message. The caller can get this session's data in a separate call.
                size -= message.data.ByteSize()
                message.ClearField("data")
            response.responses.append(message)
        return response

    async def _in_slices(self, items: Sequence[T]) -> AsyncIterator[tuple[int, T]]:
        """Number the items, and give way to other calls after each few of them."""
        for start in range(0, len(items), _SLICE):
            since = self._unary_calls.clock()
            for item in enumerate(items[start : start + _SLICE], start):
                yield item
            if start + _SLICE < len(items):
                await self._unary_calls.give_way(since, beside=1)

    async def _answers(self, questions: Sequence[Question]) -> Sequence[ValidationResult]:
        # A task costs more than most questions do, so only the questions that have to wait get one.
        answers: dict[int, ValidationResult] = {}
        waiting = {}
        async for number, question in self._in_slices(questions):
            found = self._authority.validation.immediate_result(question)
            if isinstance(found, ValidationResult):
                answers[number] = found
            else:
                waiting[number] = self._judge_alone(question)
        answers.update(zip(waiting, await asyncio.gather(*waiting.values()), strict=True))
        return [answers[number] for number in range(len(questions))]

    async def _judge_alone(self, question: Question) -> ValidationResult:
        try:
            return await self._authority.validation.validate(question)
        except DataUnreadable:
            # One session's unreadable data must not fail the whole batch: this session is answered without data.
            return await self._authority.validation.validate(question.without_data())

    def _question_of_batch(self, number: int, request: pb.ValidateSessionRequest, caller: Caller) -> Question:
        try:
            return self.question(request, caller)
        except InvalidField as error:
            raise InvalidField(f"requests[{number}].{error.field}", error.remedy) from None

    def question(self, request: pb.ValidateSessionRequest, caller: Caller) -> Question:
        """Return the question that a request asks. Raise `InvalidField`, or `PositionOutOfRange` for its `at_least`."""
        call = self._calls.validating(request, caller)
        return decode.question(call, request, self._calls.at_least(request.at_least))

    def immediate(
        self, request: pb.ValidateSessionRequest, question: Question
    ) -> pb.ValidateSessionResponse | OpenedToken | None:
        """Return the response to a request, which asks this question, if it is available without waiting.

        Otherwise return the opened token, or None if even the token must not be opened yet, because of `at_least`.
        """
        if question.at_least is not None and not self._authority.reading.has(question.at_least):
            return None
        found = self._authority.validation.immediate_result(question)
        if not isinstance(found, ValidationResult):
            return found
        self._fast_path.remember(request, question, found)
        return self.response(question.call, found)

    def _plain_validation(self, answer: ValidationResult) -> pb.ValidateSessionResponse:
        message = pb.ValidateSessionResponse()
        self._fill_plain(message, answer)
        return message

    def _fill_plain(self, message: pb.ValidateSessionResponse, answer: ValidationResult) -> None:
        message.verdict = encode.VERDICT[answer.verdict]
        message.next_step = encode.next_step(answer)
        if answer.session is not None:
            self._sessions.fill(message.session, answer.session)
            if answer.activity is not None:
                encode.set_activity(message.session, answer.session, answer.activity)
        until = answer.cacheable_until
        if until is not None and (remaining := until - self._authority.now()) > 0:
            encode.set_time(message.cacheable_until, until)
            encode.set_duration(message.cacheable_for, remaining)
            message.consistency_token = self._calls.consistency_token(answer.revision)

    def response(self, call: Call, answer: ValidationResult) -> pb.ValidateSessionResponse:
        """Return the response to a question of this call. The caller must not change it."""
        if answer.session is None and not answer.judgement.signals:
            return self._refusals.message(call, answer)
        message = self._plain_validation(answer)
        if answer.judgement.signals:
            message.signals.extend(encode.signal_messages(answer.judgement.signals))
        if answer.unmet:
            message.unmet.extend(encode.unmet_messages(answer.unmet))
        if answer.csrf is not None:
            message.csrf_token = answer.csrf.reveal()
        if answer.data is not None:
            encode.fill_data(message.data, answer.data)
        if answer.renewed is not None and answer.session is not None:
            message.renewed_token = answer.renewed.reveal()
            now = self._authority.now()
            cookies.fill_token(message.cookies, call.policy.cookie, answer.session, answer.renewed, now)
        elif message.next_step == pb.NEXT_STEP_DISCARD_TOKEN:
            cookies.fill_deletion(message.cookies, call.policy.cookie)
        return message

    async def IssueCompanionToken(
        self, request: pb.IssueCompanionTokenRequest, caller: Caller
    ) -> pb.IssueCompanionTokenResponse:
        """Issue a companion token for one purpose."""
        call = self._calls.of(request, caller)
        purpose, path = decode.purpose(request.purpose), decode.companion_path(request.path)
        companion = await self._authority.sessions.issue_companion(
            call, decode.token(request.token), purpose, decode.time_to_live(request)
        )
        response = pb.IssueCompanionTokenResponse(verdict=encode.VERDICT[companion.verdict])
        if companion.token is not None and companion.expires is not None:
            response.companion_token = companion.token.reveal()
            encode.set_time(response.expire_time, companion.expires)
            seconds = -((self._authority.now() - companion.expires) // 1000)  # rounded up: Max-Age=0 deletes the cookie
            cookies.fill_companion(response.cookies, call.policy.cookie, purpose, path, companion.token, seconds)
        return response
