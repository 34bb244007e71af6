"""The fast path of validation, for a repeated question about a session of which nothing but its activity has changed.

Applications validate the same token with every request of a client. Parsing the message, checking its fields and
opening the token then yield the same results as before. The fast path caches these results under a digest of the
message, and asks the authority whether the session is still plainly valid. Every other case takes the ordinary path.
The fast path can only answer VALID, and only after the ordinary path has answered VALID to the same bytes from the same
caller. A plain answer is VALID without signals, new tokens or session data.
"""

from __future__ import annotations

from dataclasses import replace
from hashlib import blake2b

from sessiond.access.limits import CallLimiter
from sessiond.authority.question import Question
from sessiond.authority.results import ValidationResult
from sessiond.authority.validation import Validation
from sessiond.crypto.tokens import Token
from sessiond.domain.call import Caller
from sessiond.domain.errors import LimitReached
from sessiond.domain.immutable import immutable
from sessiond.domain.judge import Presented
from sessiond.domain.session import Session
from sessiond.domain.values import Entropy
from sessiond.system.lru import Lru
from sessiond_stubs.v1 import session_authority_pb2 as pb

__all__ = ["FastPath", "RepeatedAnswer"]

_NO_TOKEN = Token("")


@immutable
class _CachedQuestion:
    question: Question
    presented: Presented


@immutable
class RepeatedAnswer:
    """A plain answer that a question about activity has got again, without its token and its message."""

    _fast_path: FastPath
    _known: _CachedQuestion
    _keys_version: int
    _session: Session

    def is_same_again(self) -> bool:
        """Ask the question again; return whether the answer differs in nothing but times.

        If so, this counts as a call and as activity, like the question itself. If not, the question must be asked.
        """
        return self._fast_path.repeats(self._known, self._keys_version, self._session)


class FastPath:
    """A cache of the latest questions with a plain VALID answer, at most `capacity` of them.

    The key of an entry is the caller, as it is since its latest change, the version of the key ring, and a digest of
    the message, keyed with a random value of this process. So the cache holds no token, an attacker cannot construct
    two messages with the same digest, a caller never gets an answer that was cached for another caller or that it may
    not have any more, and no answer outlives the key that opened its token.
    """

    def __init__(
        self, validation: Validation, entropy: Entropy, capacity: int = 20_000, limiter: CallLimiter | None = None
    ) -> None:
        self._validation = validation
        self._limiter = limiter
        self._key = entropy(32)
        self._questions: Lru[tuple[str, int, int, bytes], _CachedQuestion] = Lru(capacity)

    def answer(self, caller: Caller, raw: bytes) -> ValidationResult | None:
        """Return the plain answer to a message; None if the ordinary path must decide.

        Raise `LimitReached` if the limit of the application is reached.
        """
        known = self._questions.get(self._cache_key(caller, raw))
        return None if known is None else self._answered(known)

    def repeatable(self, caller: Caller, raw: bytes) -> tuple[ValidationResult, RepeatedAnswer | None] | None:
        """As `answer`; return also what can be asked again without the message, if the question is about activity."""
        known = self._questions.get(self._cache_key(caller, raw))
        if known is None or (answer := self._answered(known)) is None:
            return None
        if known.question.passive or answer.session is None:
            return answer, None  # the session in a passive answer is another object each time
        return answer, RepeatedAnswer(self, known, self._validation.keys_version, answer.session)

    def repeats(self, known: _CachedQuestion, keys_version: int, session: Session) -> bool:
        """Return whether a question still has the plain answer with this session; see `RepeatedAnswer`."""
        if keys_version != self._validation.keys_version:
            return False
        question = known.question
        if self._limiter is not None:
            try:
                self._limiter.check(question.call.application)
            except LimitReached:
                return False  # whoever asks the question is refused
        answer = self._validation.plain_valid_result(
            question.call, known.presented, passive=False, at_least=question.at_least
        )
        if answer is None or answer.session is not session:
            return False
        if self._limiter is not None:
            self._limiter.charge(question.call.application)
        return True

    def _answered(self, known: _CachedQuestion) -> ValidationResult | None:
        question = known.question
        if self._limiter is not None:
            self._limiter.check(question.call.application)
        answer = self._validation.plain_valid_result(
            question.call, known.presented, passive=question.passive, at_least=question.at_least
        )
        if self._limiter is not None and answer is not None:
            self._limiter.charge(question.call.application)
        return answer

    def remember(self, request: pb.ValidateSessionRequest, question: Question, answer: ValidationResult) -> None:
        """Cache a question, if the ordinary path gave it a plain VALID answer.

        The key is computed from our own serialization of the message. A client that serializes differently never takes
        the fast path, but has no other disadvantage.
        """
        if answer.presented is None:
            return
        caller = question.call.caller
        cache_key = self._cache_key(caller, request.SerializeToString())
        # Without the secrets: the token, and the metadata, which has the caller's key and may have 16 KB.
        call = replace(question.call, caller=replace(caller, metadata=()))
        self._questions.put(cache_key, _CachedQuestion(replace(question, call=call, token=_NO_TOKEN), answer.presented))

    def _cache_key(self, caller: Caller, raw: bytes) -> tuple[str, int, int, bytes]:
        digest = blake2b(raw, digest_size=16, key=self._key).digest()
        return caller.name, caller.version, self._validation.keys_version, digest
