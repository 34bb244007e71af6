"""What the server keeps about calls is small and has no secrets, whatever callers send."""

from __future__ import annotations

import gc
import os
from types import FunctionType, ModuleType
from typing import Any

import pytest

from sessiond.app import App
from sessiond.authority.question import Question
from sessiond.crypto.tokens import Token
from sessiond.domain.access import Role
from sessiond.domain.call import Caller
from sessiond.domain.errors import NotPermitted
from sessiond.rpc import authorization
from sessiond.rpc.authorization import authorize
from sessiond.rpc.fast_path import FastPath
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.attacks.story import create
from tests.support.server import AsyncStub

SECRET = "a key of a caller " + "x" * 8_000
CALLER = Caller("shop", "ipv4:192.0.2.1:5", (), frozenset({("shop", Role.VALIDATOR)}), 1)


def texts_in(thing: Any) -> set[str]:
    """Return all texts that are kept alive by an object, without those of classes, functions and modules."""
    seen: dict[int, Any] = {}
    left = [thing]
    while left:
        one = left.pop()
        if id(one) not in seen and not isinstance(one, type | FunctionType | ModuleType):
            seen[id(one)] = one
            left += gc.get_referents(one)
    return {one for one in seen.values() if isinstance(one, str)}


async def test_the_fast_path_keeps_no_secrets(app: App, stub: AsyncStub) -> None:
    """A remembered question keeps neither the token nor the metadata of its call, and is still answered.
    Metadata has the caller's key, and up to 16 KB of whatever a caller sends, for each of thousands of questions. The
    control: both are found in the question itself.
    """
    token = (await create(stub)).token
    caller = Caller("shop", metadata=(("authorization", SECRET),))
    question = Question(app.authority.call("default", caller, None), Token(token), False)
    assert {token, SECRET} <= texts_in(question)
    request = pb.ValidateSessionRequest(token=token)
    fast = FastPath(app.authority.validation, os.urandom, 10)
    answer = await app.authority.validation.validate(question)
    fast.remember(request, question, answer)
    assert not {token, SECRET} & texts_in([fast._questions.peek(key) for key in fast._questions])
    again = fast.answer(caller, request.SerializeToString())
    assert again is not None
    assert again.verdict is answer.verdict


@pytest.mark.parametrize(("name", "kept"), [("a" * 64, 1), ("a" * 65, 0), ("a" * 1_000_000, 0)])
def test_long_names_are_not_kept(name: str, kept: int) -> None:
    """A decision about who may call what is kept only if the names that the caller sent are short."""
    before = authorization._may.cache_info().currsize
    with pytest.raises(NotPermitted):
        authorize("ValidateSession", pb.ValidateSessionRequest(application=name), CALLER)
    assert authorization._may.cache_info().currsize - before == kept


def test_many_names_are_not_kept() -> None:
    """A decision about a thousand applications is not kept, and its refusal names five of them."""
    asked = [pb.ValidateSessionRequest(application=f"other{number}") for number in range(1_000)]
    before = authorization._may.cache_info().currsize
    with pytest.raises(NotPermitted, match="and 995 more") as refused:
        authorize("ValidateSessions", pb.ValidateSessionsRequest(requests=asked), CALLER)
    assert authorization._may.cache_info().currsize == before
    assert len(str(refused.value)) < 500


def test_long_names_are_judged_all_the_same() -> None:
    """Decisions that are not kept are the same as those that are: a caller of all applications is permitted."""
    authorize(
        "ValidateSession",
        pb.ValidateSessionRequest(application="a" * 65),
        Caller("all", "", (), frozenset({("*", Role.VALIDATOR)}), 1),
    )
