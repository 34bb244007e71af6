"""Session data with the answer: one web request is one question, and its answer never mixes two states."""

from __future__ import annotations

import asyncio

from sessiond.app import App
from sessiond.authority.results import Reply
from sessiond.crypto.tokens import Token
from sessiond.domain.call import Caller
from sessiond.domain.login import Login
from sessiond.domain.values import SessionId
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.attacks.story import create, loose, validate
from tests.support.held import held
from tests.support.server import AsyncStub
from tests.support.tokens import revision_in

CART = {"cart": b"3 apples", "theme": b"dark", "empty": b""}


# What changes meanwhile


async def test_no_data_of_the_next_owner(app: App, stub: AsyncStub) -> None:
    """A guest's question that is under way while a subject logs in gets nothing that the subject then puts in."""
    guest = await create(stub, "", data={"cart": b"3 apples"})
    ours = app.authority
    call = ours.call("default", Caller("test"), None)
    session_id = SessionId.parse(guest.session.session_id)
    async with held(app) as waiting:
        # Together in one group: login, and then the subject's own data.
        changes = asyncio.gather(
            ours.logins.authenticate(call, Token(guest.token), Login("ada"), Reply(lambda _: b"")),
            ours.data.update(call, session_id, {"pin": b"4711"}, Reply(lambda _: b"")),
        )
        await waiting(1)
        question = asyncio.ensure_future(validate(stub, guest.token, data={}))
        await waiting(2)
    await changes
    answer = await question
    assert answer.verdict == pb.VERDICT_SUPERSEDED
    assert (answer.HasField("data"), answer.HasField("session")) == (False, False)


async def test_the_session_is_as_new_as_its_data(app: App, stub: AsyncStub) -> None:
    """An answer's session and its data are of one version, also if the data changed while it was read."""
    own = await create(stub, data={"cart": b"3 apples"})
    named = {"session_id": own.session.session_id}
    async with held(app) as waiting:
        change = asyncio.ensure_future(
            stub.UpdateSessionData(loose.UpdateSessionDataRequest(session=named, set={"cart": b"4 apples"}))
        )
        await waiting(1)
        question = asyncio.ensure_future(validate(stub, own.token, data={}))
        await waiting(2)
    changed, answer = await change, await question
    assert (dict(answer.data.values), answer.data.version) == ({"cart": b"4 apples"}, changed.version)
    assert answer.session.data_version == changed.version
    assert revision_in(answer) == revision_in(changed)
