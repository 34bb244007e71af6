"""The short way for validations: the same question again, about a session of which nothing but its activity changed.

Applications ask about the same token with every request of a client. Reading the message, checking its fields and
opening the token then give what they gave before. The short way remembers that by a digest of the message, asks the
authority whether the plain answer still stands, and leaves everything else to the ordinary way. It can only ever say
VALID, and only after the ordinary way has said so to the same bytes.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from hashlib import blake2b

from sessiond.authority.results import Answer
from sessiond.authority.validation import Validation
from sessiond.changes import Call
from sessiond.domain.judge import Presented
from sessiond.domain.values import Entropy
from sessiond_stubs.v1 import session_authority_pb2 as pb

__all__ = ["Shortcut"]


@dataclass(frozen=True, slots=True)
class _Question:
    call: Call
    presented: Presented
    passive: bool
    min_revision: int


class Shortcut:
    """The latest questions that were answered plainly VALID, `capacity` of them at most.

    A question is kept under a digest keyed with randomness of this process: no token is kept, and nobody can make two
    messages that share one.
    """

    def __init__(self, validation: Validation, entropy: Entropy, capacity: int = 20_000) -> None:
        self._validation = validation
        self._key = entropy(32)
        self._capacity = capacity
        self._questions: OrderedDict[bytes, _Question] = OrderedDict()

    def answer(self, raw: bytes) -> Answer | None:
        """The plain answer to this message; None where the ordinary way must decide."""
        question = self._questions.get(self._digest(raw))
        if question is None:
            return None
        return self._validation.plainly_valid(
            question.call, question.presented, passive=question.passive, min_revision=question.min_revision
        )

    def remember(self, request: pb.ValidateSessionRequest, call: Call, answer: Answer) -> None:
        """Take note of how the ordinary way answered a message.

        Kept under what the message would be if it were written now. A caller that writes it in another way goes the
        ordinary way each time, and loses nothing else.
        """
        if answer.presented is None:
            return
        question = _Question(call, answer.presented, request.passive, request.min_revision)
        self._questions[self._digest(request.SerializeToString())] = question
        if len(self._questions) > self._capacity:
            self._questions.popitem(last=False)

    def _digest(self, raw: bytes) -> bytes:
        return blake2b(raw, digest_size=16, key=self._key).digest()
