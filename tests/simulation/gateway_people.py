"""People whose browsers are watched: guests with carts, families that share a browser, forms left open in tabs."""

from __future__ import annotations

from itertools import count
from typing import Any

from tests.simulation.bounds import MINUTE, SECOND
from tests.simulation.browser import Browser
from tests.simulation.gateway_records import Records, Shown
from tests.simulation.people import Person
from tests.simulation.site import LOGIN, PAGE, STEP_UP, Response

__all__ = ["Shopper", "WatchedBrowser", "watched"]

_SHARED = 0.15  # how often somebody else of the family uses the browser for a visit
_AS_GUEST = 0.4  # how often a guest shops before the login
_OLD_FORM = 0.05  # how often a form that was loaded before a step-up is sent after it


class WatchedBrowser(Browser):
    """A browser whose cookie is looked at before and after each response."""

    records: Records

    def _take(self, response: Response, answered: int) -> None:
        before = self._token()
        super()._take(response, answered)
        assert isinstance(response, Shown)
        self.records.taken(response, before, self._token(), self._wheel.now)


def watched(records: Records, number: int) -> Any:
    """Return what creates the browsers of a user, which note in these records."""

    numbers = count()

    def create(*args: Any) -> WatchedBrowser:
        named: Any = (*args[:-1], f"browser-{number}-{next(numbers)}")  # for the owners that its data names
        browser = WatchedBrowser(*named)
        browser.records = records
        return browser

    return create


class Shopper(Person):
    """A subject who shops as a guest first, and may share the browser with another one."""

    _family = ""

    def _begin(self) -> None:
        super()._begin()
        self._family = self._family or self._name
        shared = self._random.random() < _SHARED
        self._name = f"{self._family}-partner" if shared else self._family
        self._tally.traffic["visits by another user of the browser"] += shared

    async def _arrive(self) -> None:
        """Get a session of one's own, by whatever steps are needed."""
        for _ in range(self._random.randrange(self._habits.tabs)):
            self._wheel.start(self._part())  # a browser that is opened loads its tabs again
        for _ in range(6):
            response = await self._browser.fetch("/")
            self._notice(response)
            if response is None:
                await self._wheel.sleep(self._random.randrange(*self._bounds.give_up))
            elif response.page == PAGE:
                if isinstance(response, Shown) and response.user == self._name:
                    self._inside = True
                    return
                await self._replace()
            elif response.page == LOGIN:
                await self._shop_as_guest()
                await self._log_in()
            elif response.page == STEP_UP:
                again = await self._submit("/elevate")
                if again is not None and again.page == LOGIN:
                    await self._log_in()  # it is the session of somebody else
            await self._wheel.sleep(2 * SECOND)

    async def _replace(self) -> None:
        """Somebody else is logged in: log them out, or log in without."""
        self._tally.traffic["found somebody else logged in"] += 1
        if self._random.random() < 0.5:
            await self._log_out()
        else:
            await self._log_in()

    async def _shop_as_guest(self) -> None:
        if self._random.random() < _AS_GUEST:
            for _ in range(self._random.randrange(1, 4)):
                await self._wheel.sleep(self._random.randrange(3 * SECOND, 20 * SECOND))
                self._tally.traffic["items of guests"] += 1
                await self._browser.fetch("/save", csrf=self._csrf)

    async def _log_in(self) -> None:
        self._notice(await self._browser.fetch("/sign-in"))
        # Sometimes the login page stays open for longer than a session may be idle.
        wait = 50 * MINUTE if self._random.random() < 0.03 else self._random.randrange(5 * SECOND, 40 * SECOND)
        await self._wheel.sleep(wait)
        self._tally.traffic["logins"] += 1
        await self._wheel.all(self._part(2), self._form("/login", remember=self._habits.remember))

    async def _deed(self) -> None:
        if self._random.random() >= _OLD_FORM:
            await super()._deed()
            return
        response = await self._browser.fetch("/")
        self._notice(response)
        if response is not None and response.page == PAGE:
            self._tally.traffic["forms open during a step-up"] += 1
            await self._pay()
            await self._browser.fetch("/save", subject=self._name, csrf=response.csrf)
