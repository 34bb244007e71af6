"""People: when they visit, what they do, and how they react to responses."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from tests.simulation.bounds import DAY, HOUR, MINUTE, SECOND, Bounds
from tests.simulation.browser import Browser
from tests.simulation.expected import Life
from tests.simulation.networks import Whereabouts, second_network
from tests.simulation.site import AGAIN, LOGIN, PAGE, STEP_UP, Response
from tests.simulation.tally import Tally
from tests.simulation.wheel import Wheel

__all__ = ["Habits", "Person"]

_ATTEMPTS = 6


@dataclass(frozen=True, slots=True)
class Habits:
    """How a person uses a browser. `visits` per day; `long_ones` last for hours, with pauses; chances from 0 to 1.

    A phone has a browser, or an app that may have an extension.
    """

    visits: int
    long_ones: float
    remember: bool
    logs_out: float
    tabs: int
    is_phone: bool = False
    has_browser: bool = False
    has_extension: bool = False


class Person:
    """A subject with one browser."""

    def __init__(
        self,
        name: str,
        browser: Browser,
        habits: Habits,
        whereabouts: Whereabouts,
        wheel: Wheel,
        tally: Tally,
        random: Random,
        bounds: Bounds,
    ) -> None:
        self._name = name
        self._browser = browser
        self._habits = habits
        self._whereabouts = whereabouts
        self._wheel = wheel
        self._tally = tally
        self._random = random
        self._bounds = bounds
        self._csrf = ""
        self._inside = False
        self._open = False
        self._copy = ""  # of the extension

    async def live(self, start: int, days: int) -> None:
        """Act, day after day."""
        for visit in self._visits(start, days):
            if visit >= self._wheel.now:
                await self._wheel.sleep_until(visit)
                await self._visit()

    def _visits(self, start: int, days: int) -> list[int]:
        visits = []
        for day in range(days):
            morning = start + day * DAY + 7 * HOUR
            visits += [morning + self._random.randrange(15 * HOUR) for _ in range(self._habits.visits)]
        # People look at their phones on the doorstep.
        visits += [walk - self._random.randrange(90 * SECOND) for walk in self._whereabouts.walks]
        return sorted(visits)

    # A visit

    async def _visit(self) -> None:
        self._tally.traffic["visits"] += 1
        long = self._random.random() < self._habits.long_ones
        deeds = self._random.randrange(15, 35) if long else self._random.randrange(3, 10)
        self._open = True
        self._begin()
        for tab in range(self._random.randrange(self._habits.tabs)):
            self._wheel.start(self._background_tab(tab))
        await self._arrive()
        uploads = self._inside and self._random.random() < self._bounds.upload
        upload_at, switch_at = self._random.randrange(deeds), self._random.randrange(deeds)
        switches = self._habits.has_browser and self._random.random() < self._bounds.desktop_site
        in_app_at = self._random.randrange(deeds) if self._random.random() < self._bounds.in_app else -1
        for deed in range(deeds):
            await self._wheel.sleep(self._pause(long=long))
            if uploads and deed == upload_at:
                self._wheel.start(self._browser.upload(self._csrf))
            if switches and deed == switch_at:
                self._browser.desktop_site = True
            if self._habits.has_browser and deed == in_app_at:
                await self._browser.visit_in_app()
            if self._random.random() < self._bounds.update:
                self._browser.update()
            if self._inside:
                await self._deed()
            else:
                await self._arrive()
        if self._inside and self._random.random() < self._habits.logs_out:
            await self._log_out()
            if self._random.random() < self._bounds.passing_back:
                await self._wheel.sleep(self._random.randrange(20 * SECOND, 4 * MINUTE))
                await self._arrive()
                await self._pay()
        self._open = False
        await self._end()

    def _begin(self) -> None:
        """Apply what happened to the device since its last visit, and choose its networks."""
        if self._habits.is_phone and self._random.random() < self._bounds.restored:
            self._browser.restore()
        if self._random.random() < self._bounds.two_networks:
            self._browser.other_network = second_network(self._random)

    async def _end(self) -> None:
        self._browser.desktop_site = False
        self._browser.other_network = None
        if self._habits.is_phone and self._random.random() < 0.5:
            self._browser.back_up()
        if self._habits.has_extension:
            if not self._copy or self._random.random() < self._bounds.extension_copies:
                self._copy = self._browser.copy_of_token()
            elif self._copy:
                await self._browser.use_copy(self._copy)

    def _pause(self, *, long: bool) -> float:
        median, spread = (70 * SECOND, 1.1) if long else (9 * SECOND, 0.9)
        return min(median * self._random.lognormvariate(0, spread), 20 * MINUTE)

    async def _background_tab(self, number: int) -> None:
        await self._wheel.sleep((number + 1) * 700)
        while self._open:
            await self._browser.fetch("/poll")
            await self._wheel.sleep(self._random.randrange(90 * SECOND, 5 * MINUTE))

    async def _deed(self) -> None:
        kind = self._random.choices(("view", "save", "pay", "password", "twins"), (60, 18, 5, 0.7, 12))[0]
        match kind:
            case "view":
                await self._view()
            case "save":
                await self._submit("/save")
            case "pay":
                await self._pay()
            case "password":
                await self._wheel.all(self._part(), self._form("/password"))
            case _:
                await self._wheel.all(self._view(), self._view(), self._part())

    async def _part(self, times: int = 1) -> None:
        for _ in range(times):
            await self._browser.fetch("/part")

    async def _form(self, path: str, **form: bool) -> None:
        """Send a form while another tab is still loading."""
        await self._wheel.sleep(self._random.randrange(200))
        if path in ("/login", "/logout") and self._random.random() < self._bounds.double_click:
            self._tally.traffic[Life.DOUBLE_CLICK] += 1
            response = await self._twice(path, **form)
        else:
            response = await self._submit(path, **form)
        if response is not None and response.page == PAGE:
            await self._part()  # the page that the form led to
        if path != "/logout" and response is not None and self._random.random() < self._bounds.unflushed:
            await self._wheel.sleep(self._random.randrange(self._bounds.written_after))
            self._browser.kill()
            await self._wheel.sleep(self._random.randrange(5 * SECOND, 2 * MINUTE))

    async def _twice(self, path: str, **form: bool) -> Response | None:
        """Send a form twice, a moment apart. The browser shows the second response."""
        nonce = self._browser.nonce()
        given: list[Response | None] = []

        async def send(after: int) -> None:
            await self._wheel.sleep(after)
            given.append(await self._browser.fetch(path, subject=self._name, csrf=self._csrf, nonce=nonce, **form))

        await self._wheel.all(send(1), send(self._random.randrange(40, 400)))
        for response in given:
            self._notice(response)
        return next((response for response in given if response is not None and response.page == PAGE), given[-1])

    async def _view(self) -> None:
        """View a page and its parts; tabs in the background send requests again when the user comes back to them."""
        await self._wheel.all(self._page(), *(self._part(2) for _ in range(self._random.randrange(self._habits.tabs))))

    async def _page(self) -> None:
        response = await self._browser.fetch("/")
        if response is None:
            await self._wheel.sleep(self._random.randrange(*self._bounds.give_up))
            response = await self._browser.fetch("/")
        self._notice(response)
        if response is not None and response.page == PAGE:
            await self._wheel.all(*(self._part() for _ in range(self._random.randrange(3))))

    def _notice(self, response: Response | None) -> None:
        if response is None:
            return
        self._csrf = response.csrf or self._csrf
        if response.page in (LOGIN, STEP_UP):
            self._inside = False

    async def _submit(self, path: str, **form: bool) -> Response | None:
        """Send a form, and send it again if no response arrives; or the user continues elsewhere."""
        nonce = self._browser.nonce()
        response = None
        for _ in range(_ATTEMPTS):
            response = await self._browser.fetch(path, subject=self._name, csrf=self._csrf, nonce=nonce, **form)
            self._notice(response)
            if response is not None:
                break
            await self._wheel.sleep(self._random.randrange(*self._bounds.give_up))
            if self._random.random() < 0.3:
                return None
            self._tally.traffic["forms sent again"] += 1
        if response is not None and response.page == AGAIN:
            await self._wheel.sleep(SECOND)
            await self._view()  # the page again, for its CSRF token
        return response

    async def _arrive(self) -> None:
        """Get a logged-in session, by whatever steps are needed."""
        for _ in range(_ATTEMPTS):
            response = await self._browser.fetch("/")
            self._notice(response)
            if response is None:
                await self._wheel.sleep(self._random.randrange(*self._bounds.give_up))
                continue
            if response.page == PAGE:
                self._inside = True
                return
            if response.page == LOGIN:
                # Sometimes the login page stays open for longer than it may.
                wait = 12 * MINUTE if self._random.random() < 0.02 else self._random.randrange(5 * SECOND, 40 * SECOND)
                await self._wheel.sleep(wait)
                self._tally.traffic["logins"] += 1
                await self._wheel.all(self._part(2), self._form("/login", remember=self._habits.remember))
            elif response.page == STEP_UP:
                await self._submit("/elevate")
            await self._wheel.sleep(2 * SECOND)

    async def _pay(self) -> None:
        """Use a sensitive page, which needs a second factor; sometimes twice."""
        for _ in range(3):
            response = await self._browser.fetch("/payment")
            self._notice(response)
            if response is None or response.page != STEP_UP:
                return
            await self._wheel.sleep(self._random.randrange(5 * SECOND, 25 * SECOND))
            self._tally.traffic["step-ups"] += 1
            await self._wheel.all(self._part(2), self._form("/elevate"))
            await self._wheel.sleep(SECOND)

    async def _log_out(self) -> None:
        await self._wheel.all(self._part(), self._form("/logout"))
        self._inside = False
