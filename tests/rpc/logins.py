"""Helpers for tests of logins: guests, clicks on "log in", and what must hold in whatever order responses arrive."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import Any

import pytest

from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.attacks.story import (
    create,
    fresh_id,
    login,
    loose,
    validate,
)
from tests.rpc.jar import Jar
from tests.support.server import AsyncStub

__all__ = ["CART", "PASSWORD", "check_one_login", "click", "guest_of", "ids", "live", "request_ids"]

CART = {"cart": b"3 apples"}
PASSWORD = {"level": 1, "methods": ["pwd"]}

ids = pytest.mark.parametrize("ids", ["none", "same", "own", "first", "second"])
"""Which of two clicks has a request id."""


def request_ids(ids: str) -> tuple[str, str]:
    """Return the request ids of two clicks."""
    one, other = fresh_id(), fresh_id()
    return {"none": ("", ""), "same": (one, one), "own": (one, other), "first": (one, ""), "second": ("", other)}[ids]


async def guest_of(stub: AsyncStub) -> pb.CreateSessionResponse:
    """Return a guest with something in the cart."""
    return await create(stub, "", data=CART)


async def click(stub: AsyncStub, token: str, subject: str = "ada", **fields: Any) -> pb.AuthenticateSessionResponse:
    """Make the login of one click on "log in"."""
    return await login(stub, token, subject, **{"authentication": PASSWORD, **fields})


async def live(stub: AsyncStub, **conditions: Any) -> list[pb.Session]:
    """Return the live sessions."""
    return list((await stub.ListSessions(loose.ListSessionsRequest(filter=conditions))).sessions)


async def check_one_login(
    stub: AsyncStub,
    before: pb.CookieDirectives,
    answers: Sequence[pb.AuthenticateSessionResponse],
    *,
    data: dict[str, bytes],
) -> pb.Session:
    """Check that in any order of arrival there is one live session with the data and a logged-in user. Return it."""
    assert {answer.verdict for answer in answers} == {pb.VERDICT_VALID}
    (session,) = await live(stub)
    assert session.subject == "ada"
    for order in permutations(answers):
        token = Jar(before).take(answer.cookies for answer in order).token
        page = await validate(stub, token, passive=True, data={}, with_csrf_token=True)
        assert (page.verdict, page.session.session_id) == (pb.VERDICT_VALID, session.session_id)
        assert dict(page.data.values) == data
        assert page.csrf_token == order[-1].csrf_token
    return session
