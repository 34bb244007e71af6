"""`python -m tests.soak`: run a soak. Exit code 1 if something grew by more than 5 %, or if an answer was wrong."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from tests.soak.soak import Size, main


@click.command()
@click.option("--minutes", type=click.FloatRange(min=0.1), default=10.0, help="How long the clients work.")
@click.option("--sessions", type=click.IntRange(min=100), default=50_000, help="Live sessions in the store.")
@click.option("--clients", type=click.IntRange(min=1), default=100, help="Clients with near caches, in all.")
@click.option("--processes", type=click.IntRange(min=1), default=4, help="Processes that the clients share.")
@click.option("--folder", type=click.Path(path_type=Path), default=Path("build/soak"), help="Store and logs.")
def run(minutes: float, sessions: int, clients: int, processes: int, folder: Path) -> None:
    """Let many clients with near caches use an authority, and compare what the processes take early and late."""
    size = Size(minutes * 60, sessions, clients, processes)
    folder.parent.mkdir(parents=True, exist_ok=True)
    sys.exit(main(folder, size, folder.with_suffix(".json")))


if __name__ == "__main__":
    run()
