"""Take the screenshots of the example shop: `make shop-images`. They are in docs/images/shop."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.async_api import Page, ViewportSize

from tests.support.browser import PROGRAM, WHY_NOT, chromium
from tests.support.shop import PASSWORDS, Shop, open_shop

_FOLDER = Path(__file__).parents[1] / "docs/images/shop"
_SIZE = ViewportSize(width=760, height=460)
_WARNS_SOON = 'idle_timeout = "75s"'


async def main() -> None:
    """Walk through the shop with two devices, and keep what the first one shows."""
    if not PROGRAM:
        sys.exit(WHY_NOT)
    _FOLDER.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as folder:
        async with chromium() as browser, open_shop("with_middleware", Path(folder), browser, _WARNS_SOON) as shop:
            await _walk(shop)


async def _walk(shop: Shop) -> None:
    async with shop.device() as device, shop.device() as other:
        page = await device.open("/")
        await page.set_viewport_size(_SIZE)
        await _keep(page, "goods")
        await page.get_by_role("listitem").filter(has_text="Teapot").get_by_role("button").click()
        await _keep(page, "cart")
        await device.login("carol", "/cart", page)
        await page.get_by_role("button", name="Order").click()
        await page.get_by_text("packed").wait_for()
        await _keep(page, "orders")
        await other.login("carol")
        await page.goto(device.site + "/account/devices")
        await page.get_by_role("listitem").nth(1).wait_for()
        await _keep(page, "devices")
        await page.goto(device.site + "/admin")
        await _keep(page, "step-up")
        await page.get_by_label("Password").fill(PASSWORDS["carol"])
        await page.get_by_label("Code").fill("123456")
        await page.get_by_role("button", name="Log in").click()
        await page.get_by_role("heading", name="All orders").wait_for()
        await page.get_by_role("button", name="Stay logged in").wait_for()
        await _keep(page, "warning")


async def _keep(page: Page, name: str) -> None:
    await page.screenshot(path=_FOLDER / f"{name}.png")


if __name__ == "__main__":
    asyncio.run(main())
