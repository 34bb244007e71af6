"""One side of the figures about Django's sessions, in a process of its own: one thread that reads sessions in a loop.

`python -m bench.django_sessions COUNT NAME PLACE...` opens COUNT sessions, prints `ready`, and then one line of JSON
for each line of its standard input, which is the number of sessions to read. NAME and PLACE are `db FOLDER`, `cached_db
FOLDER REDIS` or `near_cache SESSIOND`. With `page_cached_db FOLDER REDIS` and `page_sessiond SESSIOND` whole requests
pass through Django's WSGI handler, without a network; the page shows the cart.

All sides have the same sessions, and check the data of each one that they read.
"""

from __future__ import annotations

import io
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

__all__ = ["data_of", "django_page", "django_store", "near_cache", "sessiond_page", "urlpatterns"]

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


def _configure(middleware: str, **more: Any) -> None:
    import django
    from django.conf import settings

    settings.configure(
        SECRET_KEY="not a secret: it signs the sessions of a benchmark",
        ALLOWED_HOSTS=["localhost"],
        MIDDLEWARE=[middleware],
        ROOT_URLCONF=__name__,
        USE_TZ=True,
        **more,
    )
    django.setup()


def _django_sessions(count: int, engine: str, folder: Path, redis: str) -> tuple[Any, list[str]]:
    """Fill Django's session engine of that name, over SQLite in `folder`. Return its class, and the sessions' keys."""
    location = f"redis://{redis}" if redis else ""
    backend = "redis.RedisCache" if redis else "dummy.DummyCache"
    _configure(
        "django.contrib.sessions.middleware.SessionMiddleware",
        INSTALLED_APPS=["django.contrib.sessions"],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(folder / "django.db")}},
        CACHES={"default": {"BACKEND": f"django.core.cache.backends.{backend}", "LOCATION": location}},
        SESSION_ENGINE=f"django.contrib.sessions.backends.{engine}",
    )
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    store: Any = import_module(f"django.contrib.sessions.backends.{engine}").SessionStore
    keys = []
    for number in range(count):
        session = store()
        session.update(data_of(number))
        session.create()
        keys.append(session.session_key)
    return store, keys


def django_store(count: int, engine: str, folder: Path, redis: str = "") -> Read:
    """Fill Django's session engine of that name, and return what reads a session."""
    store, keys = _django_sessions(count, engine, folder, redis)

    def read(number: int) -> Any:
        # As Django's middleware does it: a new object for each request, which loads its data at the first access.
        return store(keys[number])["cart"]

    return read


def django_page(count: int, engine: str, folder: Path, redis: str = "") -> Read:
    """Fill Django's session engine of that name, and return what requests the page with a session."""
    _, keys = _django_sessions(count, engine, folder, redis)
    return _requests([(f"sessionid={key}", ClientContext(ip_address="127.0.0.1")) for key in keys])


def sessiond_page(count: int, address: str) -> Read:
    """Open the sessions at an authority, and return what requests the page with one, through our middleware."""
    sessions = _opened(Client(address, application=APPLICATION, timeout=30), count)
    app = "sessiond_client.contrib.django"
    _configure(
        f"{app}.middleware.SessiondMiddleware",
        INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", app],
        SESSION_ENGINE=f"{app}.backend",
        SESSIOND={"TARGET": address, "APPLICATION": APPLICATION, "TIMEOUT": 30},
    )
    read = _requests([(f"__Host-id={token.reveal()}", context) for token, context in sessions])
    from sessiond_client.contrib.django.configuration import project

    _wait_until_open(project().clients.get(), read)
    return read


def _requests(visitors: list[tuple[str, ClientContext]]) -> Read:
    from django.core.handlers.wsgi import WSGIHandler

    handler = WSGIHandler()

    def read(number: int) -> Any:
        cookie, client = visitors[number]
        environ = {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": "/cart",
            "SCRIPT_NAME": "",
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "443",
            "REMOTE_ADDR": client.ip_address,
            "HTTP_HOST": "localhost",
            "HTTP_USER_AGENT": client.user_agent,
            "HTTP_COOKIE": cookie,
            "wsgi.url_scheme": "https",
            "wsgi.input": io.BytesIO(),
        }
        response = handler(environ, lambda status, headers: None)
        found = json.loads(b"".join(response))
        response.close()
        return found

    return read


def cart(request: Any) -> Any:
    """The page: the cart in the session."""
    from django.http import JsonResponse

    return JsonResponse(request.session["cart"], safe=False)


class _Routes:
    """The routes of the page. Django is imported when it asks for them: not every side needs it."""

    def __iter__(self) -> Any:
        from django.urls import path

        return iter([path("cart", cart)])

    def __reversed__(self) -> Any:
        return iter(self)


urlpatterns = _Routes()


def _opened(client: Client, count: int) -> list[tuple[Token, ClientContext]]:
    """Open the sessions at an authority."""
    sessions: list[tuple[Token, ClientContext]] = []
    for number in range(count):
        seen = client_of(number)
        context = ClientContext(ip_address=seen.ip_address, user_agent=seen.user_agent)
        data = json_data.encode(data_of(number))
        sessions.append((client.create(subject=str(number), client=context, data=data).token, context))
    return sessions


def _wait_until_open(client: Client, read: Read) -> None:
    give_up = time.monotonic() + 20
    while client.near_cache is None or not client.near_cache.is_open:
        expect(time.monotonic() < give_up, "the near cache did not open")
        read(0)
        time.sleep(0.01)


def near_cache(count: int, address: str) -> Read:
    """Open the sessions at an authority, and return what validates one with its data through a near cache."""
    client = Client(address, application=APPLICATION, timeout=30, near_cache=True)
    sessions = _opened(client, count)

    def read(number: int) -> Any:
        token, context = sessions[number]
        answer = client.validate(token, client=context, data=True)
        expect(answer.valid and answer.data is not None, "a validation had the wrong answer")
        assert answer.data is not None
        return json_data.decode(answer.data.values)["cart"]

    _wait_until_open(client, read)
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
    if name in ("near_cache", "page_sessiond"):
        read = (near_cache if name == "near_cache" else sessiond_page)(sessions, place)
    else:
        engine = name.removeprefix("page_")
        read = (django_store if name == engine else django_page)(sessions, engine, Path(place), *more)
    _run(read, sessions, 0, sessions)
    print("ready", flush=True)
    first = 0
    for line in sys.stdin:
        print(json.dumps(_run(read, sessions, first, int(line))), flush=True)
        first += int(line)


if __name__ == "__main__":
    main()
