"""The week: a population over a real authority, in virtual time, from a seed."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

from sessiond.detection.client_facts import FactReader
from sessiond.domain.event import Event, EventFilter
from sessiond.domain.policy import PRESETS, LimitRule, Policy
from sessiond.domain.values import Millis
from sessiond.eventlog.feed import Checkpoint
from tests.simulation.agents import APPS, DESKTOPS, PHONES, RELATED
from tests.simulation.bounds import DAY, MINUTE, Bounds
from tests.simulation.browser import Browser
from tests.simulation.networks import desk, walk, write_databases
from tests.simulation.people import Habits, Person
from tests.simulation.service import Service
from tests.simulation.site import Site
from tests.simulation.tally import Report, Tally, report_of
from tests.simulation.wheel import Wheel
from tests.support.assembled import Assembled
from tests.support.clock import START, ManualClock

__all__ = ["MIDNIGHT", "Stage", "Week", "authority_of", "log_of", "policy_of", "simulate", "start_user", "sweep"]

_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # nothing here is about durability
_SWEEP_EVERY = 15 * MINUTE
MIDNIGHT = START - START % DAY


def policy_of(preset: str) -> Policy:
    """Return a preset's policy, with the features that an application must enable.

    Sessions can be remembered, and their number is limited: both are off in every preset. The user agents of each app
    are listed as related, which only the application can know.
    """
    return replace(
        PRESETS[preset],
        remember_idle_timeout=Millis(3 * DAY),
        remember_absolute_timeout=Millis(14 * DAY),
        max_sessions=3,
        on_limit=LimitRule.EVICT_OLDEST,
        related_agents=RELATED,
    )


@dataclass(frozen=True, slots=True)
class Week:
    """The parameters of a simulation. `change` modifies the preset's policy, for negative controls."""

    preset: str
    seed: int = 1
    days: int = 7
    users: int = 12
    bounds: Bounds = Bounds()
    change: Callable[[Policy], Policy] = lambda policy: policy

    @property
    def policy(self) -> Policy:
        """The policy in effect."""
        return self.change(policy_of(self.preset))


@dataclass(frozen=True, slots=True)
class Stage:
    """What guests of the simulation may use: those who play the thief."""

    site: Site
    wheel: Wheel
    browsers: list[Browser]


async def simulate(week: Week, guest: Callable[[Stage], None] | None = None) -> Report:
    """Run the simulation, and return its report. The same week gives the same report."""
    clock, tally, random = ManualClock(MIDNIGHT), Tally(), Random(week.seed)
    wheel = Wheel(clock)
    async with authority_of(week, clock) as assembled:
        site = Site(Service(assembled.authority), wheel, tally, random, week.bounds, level=1)
        browsers = [browser for number in range(week.users) for browser in start_user(week, number, site, wheel, tally)]
        wheel.start(sweep(assembled, wheel))
        if guest is not None:
            guest(Stage(site, wheel, browsers))
        try:
            await wheel.run(MIDNIGHT + week.days * DAY)
        finally:
            await wheel.close()
        events = await log_of(assembled)
    title = f"{week.preset}: {week.users} users, {week.days} days, seed {week.seed}"
    return report_of(title, tally, events, week.policy, MIDNIGHT)


@asynccontextmanager
async def authority_of(week: Week, clock: ManualClock) -> AsyncIterator[Assembled]:
    folder = Path(tempfile.mkdtemp(prefix="sessiond-week-", dir=_MEMORY))
    try:
        policies, entropy = {"default": week.policy}, Random(f"{week.seed}/entropy").randbytes
        assembled = await Assembled.open(folder, policies, clock, entropy, FactReader(*write_databases(folder)))
        try:
            yield assembled
        finally:
            await assembled.close()
    finally:
        shutil.rmtree(folder)


def start_user(
    week: Week,
    number: int,
    site: Site,
    wheel: Wheel,
    tally: Tally,
    kinds: tuple[Callable[..., Browser], type[Person]] = (Browser, Person),
) -> list[Browser]:
    """Start a user with a phone and, mostly, a laptop. `kinds`: what creates browsers and people."""
    random = Random(f"{week.seed}/{number}")
    name, browsers = f"user-{number}", []
    for kind, agents in (("phone", PHONES), ("laptop", DESKTOPS)):
        if kind == "laptop" and random.random() < 0.25:
            continue
        if kind == "phone":
            where = walk(MIDNIGHT, week.days, random, number, week.bounds)
            habits = Habits(4, 0.1, remember=random.random() < 0.4, logs_out=0.15, tabs=2)
        else:
            where = desk(MIDNIGHT, week.days, random, number)
            habits = Habits(2, 0.5, remember=random.random() < 0.3, logs_out=0.4, tabs=4)
        device = f"{name}-{kind}" if random.random() < 0.3 else ""
        agent = random.choice(agents)
        extended = False
        if kind == "phone" and random.random() < week.bounds.hybrid:
            agent = random.choice(APPS)
            extended = random.random() < week.bounds.extension
            device = f"{name}-app" if extended else device
        habits = replace(habits, is_phone=kind == "phone", has_extension=extended)
        habits = replace(habits, has_browser=kind == "phone" and not agent.native)
        browser = kinds[0](site, wheel, tally, random, week.bounds, agent, where, device)
        person = kinds[1](name, browser, habits, where, wheel, tally, random, week.bounds)
        wheel.start(person.live(MIDNIGHT, week.days))
        browsers.append(browser)
    return browsers


async def sweep(assembled: Assembled, wheel: Wheel) -> None:
    while True:
        await wheel.sleep(_SWEEP_EVERY)
        await assembled.sweep()


async def log_of(assembled: Assembled) -> list[Event]:
    """Return the whole log, as a subscriber receives it."""
    reading, events = assembled.authority.reading, []
    head = reading.describe().position.revision
    stream = await reading.subscribe(None, EventFilter(), 0.05, earliest=True)
    async for item in stream:
        if isinstance(item, Checkpoint):
            if item.revision >= head:
                break
        else:
            events.append(item)
            if item.revision >= head:
                break
    await stream.aclose()
    return events
