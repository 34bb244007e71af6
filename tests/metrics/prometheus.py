"""A real Prometheus with our alerts, whose times are shortened so that a test can wait for them."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.support.programs import start_program
from tests.support.sidecars import until

__all__ = ["RULES", "Prometheus", "free_port", "needs_prometheus", "watching"]

RULES = Path("deploy/prometheus/sessiond.rules.yaml")
needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="Prometheus is not installed (Debian: prometheus)"
)
_SHORTER = {r"for: \d+m\n": "for: 0s\n", r"\[15m\]": "[20s]", r"\[\d+m\]": "[4s]", "> 300": "> 2", "> 5000": "> 20"}
_CONFIG = """
global: {{scrape_interval: 200ms, scrape_timeout: 200ms, evaluation_interval: 200ms}}
rule_files: [rules.yaml]
scrape_configs:
{jobs}
"""
_JOB = '  - {{job_name: {name}, static_configs: [{{targets: ["{target}"]}}]}}'


class Prometheus:
    """Watches servers, and evaluates our alerts."""

    def __init__(self, address: str, targets: int) -> None:
        self._address = address
        self._targets = targets

    async def firing(self) -> Mapping[str, str]:
        """Return the summary of each alert that fires."""
        found = await asyncio.to_thread(self._get, "alerts")
        return {
            one["labels"]["alertname"]: one["annotations"]["summary"]
            for one in found["data"]["alerts"]
            if one["state"] == "firing"
        }

    async def values(self, expression: str) -> list[float]:
        """Return the values of an expression now."""
        found = await asyncio.to_thread(self._get, f"query?{urlencode({'query': expression})}")
        return [float(one["value"][1]) for one in found["data"]["result"]]

    async def until_watching(self) -> None:
        """Wait until all servers were asked, and all alerts were evaluated a few times."""

        async def holds() -> bool:
            rules = (await asyncio.to_thread(self._get, "rules"))["data"]["groups"]
            targets = (await asyncio.to_thread(self._get, "targets"))["data"]["activeTargets"]
            evaluated = [rule.get("health") for group in rules for rule in group["rules"]]
            is_up = [one["health"] for one in targets] == ["up"] * self._targets
            return is_up and bool(evaluated) and set(evaluated) == {"ok"}

        await until(holds)

    async def until_fires(self, *names: str) -> Mapping[str, str]:
        """Wait until these alerts have fired, at the same time or one after the other. Return their summaries."""
        seen: dict[str, str] = {}

        async def have_fired() -> bool:
            seen.update(await self.firing())
            return set(names) <= seen.keys()

        await until(have_fired)
        return seen

    def _get(self, what: str) -> Any:
        with closing(urllib.request.urlopen(f"http://{self._address}/api/v1/{what}", timeout=10)) as response:
            return json.loads(response.read())


def _shortened(rules: str) -> str:
    for long, short in _SHORTER.items():
        rules, count = re.subn(long, short, rules)
        assert count, f"no rule has {long}"
    return rules


def free_port() -> int:
    """Return a port that nobody uses now."""
    with closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@asynccontextmanager
async def watching(folder: Path, **targets: str) -> AsyncIterator[Prometheus]:
    """Watch servers whose metrics are at these addresses, by the name of the job. No alert may fire at first."""
    _write_files(folder, targets)
    address = f"127.0.0.1:{free_port()}"
    process = await start_program(
        "prometheus",
        f"--config.file={folder / 'prometheus.yaml'}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address={address}",
        "--log.level=error",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        prometheus = Prometheus(address, len(targets))

        async def answers() -> bool:
            assert process.returncode is None, "Prometheus has ended"
            with suppress(OSError):
                await prometheus.firing()
                return True
            return False

        await until(answers)
        await prometheus.until_watching()
        await asyncio.sleep(1)  # five evaluations
        assert await prometheus.firing() == {}
        yield prometheus
    finally:
        process.terminate()
        await process.wait()


def _write_files(folder: Path, targets: Mapping[str, str]) -> None:
    jobs = "\n".join(_JOB.format(name=name.replace("_", "-"), target=target) for name, target in targets.items())
    (folder / "prometheus.yaml").write_text(_CONFIG.format(jobs=jobs), encoding="utf-8")
    (folder / "rules.yaml").write_text(_shortened(RULES.read_text(encoding="utf-8")), encoding="utf-8")
