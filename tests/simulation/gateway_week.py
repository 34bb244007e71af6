"""A week of ordinary web traffic through the gateway: the same population, with the gateway's rules at work."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from random import Random

from sessiond.domain.lifecycle import expired_view
from sessiond.domain.values import Instant, SessionId
from tests.simulation.bounds import DAY, Bounds
from tests.simulation.gateway_client import AuthorityClient, Outages
from tests.simulation.gateway_people import Shopper, watched
from tests.simulation.gateway_records import Records
from tests.simulation.gateway_site import GatewaySite, gateway_of
from tests.simulation.service import Service
from tests.simulation.tally import Report, Tally, report_of
from tests.simulation.week import MIDNIGHT, Week, authority_of, log_of, start_user, sweep
from tests.simulation.wheel import Wheel
from tests.support.assembled import Assembled
from tests.support.clock import ManualClock

__all__ = ["GatewayWeek", "simulate_gateway"]


@dataclass(frozen=True, slots=True)
class GatewayWeek(Week):
    """The parameters of a simulation through the gateway. There are no extensions of apps, which are no browsers."""

    bounds: Bounds = Bounds(extension=0)
    slow: float = GatewaySite.slow


async def simulate_gateway(week: GatewayWeek) -> Report:
    """Run the simulation. Its report has the faults among the alarms. The same week gives the same report."""
    clock, tally, random = ManualClock(MIDNIGHT), Tally(), Random(week.seed)
    wheel, records = Wheel(clock), Records(tally.traffic)
    outages = Outages(MIDNIGHT, week.days, Random(f"{week.seed}/outages"))
    tally.traffic["outages"] = len(outages.windows)
    async with authority_of(week, clock) as assembled:
        client = AuthorityClient(Service(assembled.authority), wheel, tally, random, records, outages)
        site = GatewaySite(client, gateway_of(wheel), wheel, tally, random, records)
        site.slow = week.slow
        for number in range(week.users):
            start_user(week, number, site, wheel, tally, (watched(records, number), Shopper))
        wheel.start(sweep(assembled, wheel))
        try:
            await wheel.run(MIDNIGHT + week.days * DAY)
        finally:
            await wheel.close()
        events = await log_of(assembled)
        await assembled.sweeper.save_activity(everything=True)
        ended = await _endings(assembled, records.lost_sessions(), clock.now())
    records.check(ended, MIDNIGHT)
    title = f"through the gateway, {week.preset}: {week.users} users, {week.days} days, seed {week.seed}"
    report = report_of(title, tally, events, week.policy, MIDNIGHT)
    return replace(report, alarms=report.alarms + records.faults, examples=(*report.examples, *records.examples))


async def _endings(assembled: Assembled, ids: Iterable[str], now: Instant) -> dict[str, int]:
    """Return when these sessions ended. A deadline counts from its time on, whenever it was noticed."""
    ended: dict[str, int] = {}
    for session_id in sorted(ids):
        session = await assembled.store.session(SessionId.parse(session_id))
        assert session is not None
        if (ending := expired_view(session, now).ending) is not None:
            ended[session_id] = ending.at
    return ended
