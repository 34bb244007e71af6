"""`python -m tests.simulation`: simulate ordinary traffic and print counts; exit code 1 for unexpected alarms."""

from __future__ import annotations

import argparse
import asyncio
import sys

import structlog

from sessiond.domain.policy import PRESETS
from tests.simulation.gateway_week import GatewayWeek, simulate_gateway
from tests.simulation.week import Week, simulate


def main() -> int:
    """Run the simulation that the arguments describe."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--days", type=int, default=7)
    parser.add_argument("--users", type=int, default=60)
    parser.add_argument("--gateway", action="store_true", help="through the Python client's gateway, with outages")
    parser.add_argument("--preset", choices=sorted(PRESETS), action="append", help="may be given more than once")
    given = parser.parse_args()
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    alarmed = False
    for preset in given.preset or ["owasp-low", "owasp-high", "nist-aal2"]:
        if given.gateway:
            report = asyncio.run(simulate_gateway(GatewayWeek(preset, given.seed, given.days, given.users)))
        else:
            report = asyncio.run(simulate(Week(preset, given.seed, given.days, given.users)))
        sys.stdout.write(f"{report}\n")
        alarmed = alarmed or bool(report.alarms)
    return int(alarmed)


if __name__ == "__main__":
    sys.exit(main())
