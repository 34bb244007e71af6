"""Renewed tokens, as the users of the shop notice them: not at all."""

from __future__ import annotations

import pytest
from playwright.async_api import Page

from sessiond_client import EventType
from tests.support.relay import relayed
from tests.support.shop import Device, Shop, eventually

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="package")]


async def test_a_renewal_is_not_noticed(impatient_shop: Shop) -> None:
    """The browser gets a new cookie with some page, and the user stays logged in, in the same session."""
    shop = impatient_shop
    async with shop.device() as device:
        page = await device.login("alice", "/account/profile")
        (session,) = await shop.sessions("alice")
        await _next_token(device, page)
        assert await page.get_by_text("1 Rabbit Hole").count() == 1
        assert [after.session_id for after in await shop.sessions("alice")] == [session.session_id]
        assert await _suspicions(shop, "alice") == 0


async def test_a_late_answer_does_not_log_out(impatient_shop: Shop) -> None:
    """A response that arrives late puts an older cookie into the browser. The user stays logged in, and the next page
    brings the newer cookie back.
    """
    shop = impatient_shop
    async with relayed(shop.port) as relay, shop.device(port=relay.port) as device:
        await device.without_script()  # which asks for the status, and so would bring the newer cookie back at once
        page, slow = await device.login("bob", "/account/profile"), await device.open()
        first = await device.cookie()
        await _until_due(shop, device)
        await slow.evaluate(f"location.assign('{device.site}/account/profile?held=1')")
        await relay.held.wait()
        second = await _next_token(device, page)
        third = await _next_token(device, page)
        assert (first == second, second == third) == (False, False)
        await page.reload()  # the first use of the third token: from now on the second one is old
        relay.released.set()
        await eventually(lambda: _has(device, second), 5)
        await page.reload()
        assert await page.get_by_role("button", name="Log out bob").count() == 1
        assert await _has(device, third)
        assert await _suspicions(shop, "bob") == 0


async def _next_token(device: Device, page: Page) -> str:
    """Load pages until one brings a new cookie, and return its value."""
    before = await device.cookie()

    async def has_changed() -> bool:
        await page.reload()
        return await device.cookie() != before

    await eventually(has_changed)
    return await device.cookie()


async def _until_due(shop: Shop, device: Device) -> None:
    """Wait until the browser's token must be renewed, without using it."""
    token = await device.cookie()

    async def is_due() -> bool:
        return (await shop.authority.validate(token, passive=True)).renewed_token is not None

    await eventually(is_due)


async def _has(device: Device, value: str) -> bool:
    return await device.cookie() == value


async def _suspicions(shop: Shop, user: str) -> int:
    events = [event async for event in shop.authority.activity(user)]
    assert events
    return sum(event.type is EventType.HIJACK_SUSPECTED for event in events)
