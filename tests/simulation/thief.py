"""A thief of cookies, for negative controls: this traffic must not pass as ordinary."""

from __future__ import annotations

from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.simulation.bounds import HOUR, SECOND
from tests.simulation.site import SESSION, Request
from tests.simulation.week import Stage

__all__ = ["steal"]

_THIEF = pb.ClientContext(
    ip_address="198.19.200.66", user_agent="Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"
)


def steal(stage: Stage) -> None:
    """Let a thief copy a cookie each hour, from one browser after another, and use it."""

    async def act() -> None:
        while True:
            for browser in stage.browsers:
                await stage.wheel.sleep(HOUR)
                stolen = browser.jar.sent(stage.wheel.now)
                await stage.wheel.sleep(20 * SECOND)
                if SESSION in stolen:
                    await stage.site.handle(Request("/", stolen, _THIEF))

    stage.wheel.start(act())
