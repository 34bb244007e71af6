"""The fast path of validation: the same question again, about a session of which nothing but its activity changed.

Applications ask about the same token with every request of a client. Reading the message, checking its fields and
opening the token then give what they gave before. The fast path remembers that by a digest of the message, asks the
authority whether the plain answer still stands, and leaves everything else to the ordinary path. It can only ever say
VALID, and only after the ordinary path has said so to the same bytes from the same caller.
"""

from __future__ import annotations

from hashlib import blake2b

from sessiond.authority.question import Question
from sessiond.authority.results import Answer
from sessiond.authority.validation import Validation
from sessiond.domain.call import Caller
from sessiond.domain.immutable import immutable
from sessiond.domain.judge import Presented
from sessiond.domain.values import Entropy
from sessiond.system.lru import Lru
from sessiond_stubs.v1 import session_authority_pb2 as pb

__all__ = ["FastPath"]


@immutable
class _Remembered:
    question: Question
    presented: Presented


class FastPath:
    """The latest questions that were answered plainly VALID, `capacity` of them at most.

    A question is kept under its caller's name and a digest of its bytes, keyed with randomness of this process: no
    token is kept, nobody can make two messages that share one, and no caller gets an answer that was given to another.
    """

    def __init__(self, validation: Validation, entropy: Entropy, capacity: int = 20_000) -> None:
        self._validation = validation
        self._key = entropy(32)
        self._questions: Lru[tuple[str, bytes], _Remembered] = Lru(capacity)

    def answer(self, caller: Caller, raw: bytes) -> Answer | None:
        """The plain answer to this message; None if the ordinary path must decide."""
        known = self._questions.get(self._name(caller, raw))
        if known is None:
            return None
        question = known.question
        return self._validation.plainly_valid(
            question.call, known.presented, passive=question.passive, at_least=question.at_least
        )

    def remember(self, request: pb.ValidateSessionRequest, question: Question, answer: Answer) -> None:
        """Take note of how the ordinary path answered a message.

        Keyed by our own serialization: a client that serializes differently never takes the fast path, and loses
        nothing else.
        """
        if answer.presented is None:
            return
        name = self._name(question.call.caller, request.SerializeToString())
        self._questions.put(name, _Remembered(question, answer.presented))

    def _name(self, caller: Caller, raw: bytes) -> tuple[str, bytes]:
        return caller.name, blake2b(raw, digest_size=16, key=self._key).digest()
