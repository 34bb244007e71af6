"""One side of the figures about Django's sessions, in a process of its own: one thread that reads sessions in a loop.

`python -m bench.django_sessions COUNT NAME PLACE...` opens COUNT sessions, prints `ready`, and then one line of JSON
for each line of its standard input, which is the number of sessions to read. NAME and PLACE are `db FOLDER`, `cached_db
FOLDER REDIS` or `near_cache SESSIOND`.

All sides have the same sessions, and check the data of each one that they read.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from bench.seed import APPLICATION, client_of
from bench.sides import expect
from sessiond_client import Client, ClientContext, Token, json_data

__all__ = ["data_of", "django_store", "near_cache"]

_SPREAD = 7919  # a prime number: consecutive reads are of different sessions

Read = Callable[[int], Any]
"""Reads one session, and returns its cart."""


def data_of(number: int) -> dict[str, Any]:
    """Return what the session of that number holds: what Django's login stores, and a small cart."""
    return {
        "_auth_user_id": str(number),
        "_auth_user_backend": "django.contrib.auth.backends.ModelBackend",
        "_auth_user_hash": f"{number:064x}",
        "cart": [number, number + 1],
    }


def django_store(count: int, engine: str, folder: Path, redis: str = "") -> Read:
    """Fill Django's session engine of that name, over SQLite in `folder`, and return what reads a session."""
    import django
    from django.conf import settings
    from django.core.management import call_command

    location = f"redis://{redis}" if redis else ""
    backend = "redis.RedisCache" if redis else "dummy.DummyCache"
    settings.configure(
        SECRET_KEY="not a secret: it signs the sessions of a benchmark",
        INSTALLED_APPS=["django.contrib.sessions"],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(folder / "django.db")}},
        CACHES={"default": {"BACKEND": f"django.core.cache.backends.{backend}", "LOCATION": location}},
        USE_TZ=True,
    )
    django.setup()
    call_command("migrate", verbosity=0)
    store: Any = import_module(f"django.contrib.sessions.backends.{engine}").SessionStore
    keys = []
    for number in range(count):
        session = store()
        session.update(data_of(number))
        session.create()
        keys.append(session.session_key)

    def read(number: int) -> Any:
        # As Django's middleware does it: a new object for each request, which loads its data at the first access.
        return store(keys[number])["cart"]

    return read


def near_cache(count: int, address: str) -> Read:
    """Open the sessions at an authority, and return what validates one with its data through a near cache."""
    client = Client(address, application=APPLICATION, timeout=30, near_cache=True)
    sessions: list[tuple[Token, ClientContext]] = []
    for number in range(count):
        seen = client_of(number)
        context = ClientContext(ip_address=seen.ip_address, user_agent=seen.user_agent)
        data = json_data.encode(data_of(number))
        sessions.append((client.create(subject=f"user-{number:07d}", client=context, data=data).token, context))

    def read(number: int) -> Any:
        token, context = sessions[number]
        answer = client.validate(token, client=context, data=True)
        expect(answer.valid and answer.data is not None, "a validation had the wrong answer")
        assert answer.data is not None
        return json_data.decode(answer.data.values)["cart"]

    give_up = time.monotonic() + 20
    while client.near_cache is None or not client.near_cache.is_open:
        expect(time.monotonic() < give_up, "the near cache did not open")
        read(0)
        time.sleep(0.01)
    return read


def _run(read: Read, sessions: int, first: int, count: int) -> dict[str, float]:
    begun, cpu = time.perf_counter(), time.process_time()
    for step in range(first, first + count):
        number = step * _SPREAD % sessions
        expect(read(number) == [number, number + 1], "a session had the wrong data")
    taken = time.perf_counter() - begun
    return {"per_second": count / taken, "client_cpu_us": (time.process_time() - cpu) / count * 1e6}


def main() -> None:
    """Read sessions as the standard input asks for."""
    name, place, *more = sys.argv[2:]
    sessions = int(sys.argv[1])
    read = near_cache(sessions, place) if name == "near_cache" else django_store(sessions, name, Path(place), *more)
    _run(read, sessions, 0, sessions)
    print("ready", flush=True)
    first = 0
    for line in sys.stdin:
        print(json.dumps(_run(read, sessions, first, int(line))), flush=True)
        first += int(line)


if __name__ == "__main__":
    main()
