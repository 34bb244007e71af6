"""Asking a server for its metrics, as Prometheus does."""

from __future__ import annotations

import asyncio
import urllib.request
from contextlib import closing

from prometheus_client.parser import text_string_to_metric_families

from sessiond.app import App
from sessiond.sidecar_app import Sidecar

__all__ = ["Scraped", "address_of", "fetched", "scraped"]


def address_of(server: App | Sidecar) -> str:
    """Return where a server in this process answers."""
    found = server._metrics if isinstance(server, Sidecar) else server._endpoints._metrics
    assert found is not None
    return found.address


async def fetched(address: str, accept: str = "text/plain", path: str = "/metrics") -> tuple[str, str]:
    """Return what is answered, and its content type."""

    def fetch() -> tuple[str, str]:
        request = urllib.request.Request(f"http://{address}{path}", headers={"accept": accept})
        with closing(urllib.request.urlopen(request, timeout=30)) as response:
            return response.read().decode(), response.headers["content-type"]

    return await asyncio.to_thread(fetch)


class Scraped:
    """The samples of one look."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.families = {family.name: family for family in text_string_to_metric_families(text)}

    def value(self, name: str, **labels: str) -> float:
        """Return the sum of the samples with this name and these labels. There must be at least one."""
        found = self.samples(name, **labels)
        assert found, f"no sample {name} has {labels}"
        return sum(found)

    def samples(self, name: str, **labels: str) -> list[float]:
        """Return the values of the samples with this name and these labels."""
        return [
            sample.value
            for family in self.families.values()
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ]


async def scraped(server: App | Sidecar) -> Scraped:
    """Look at the metrics of a server in this process."""
    return Scraped((await fetched(address_of(server)))[0])
