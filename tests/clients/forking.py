"""A program that forks after its clients have made calls; see test_life.

Its arguments are the authority's address, what it does (`threads` or `asyncio`), and for `threads` perhaps the address
of an authority that keeps a call waiting: then it forks during that call, when its standard input has a line. It writes
a line for each child: what the parent's clients raised there, and how the child's own calls ended.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine
from functools import partial

from sessiond_client import AsyncClient, Client, Event, Events, SessiondError

CHILDREN = 4
PATIENCE = 20
"""Seconds after which a child that hangs is ended by a signal."""


def kind_of(call: Callable[[], object]) -> str:
    """What a call ends in."""
    try:
        call()
    except SessiondError as error:
        return type(error).__name__
    return "fine"


def child(target: str, client: Client, unused: Client, events: Events[Event]) -> None:
    signal.alarm(PATIENCE)
    endings = [kind_of(client.authority), kind_of(client.events), kind_of(events.__next__)]
    client.close()
    del client, events
    with Client(target) as own:
        endings += [kind_of(own.authority), kind_of(unused.authority)]
    print(*endings, flush=True)  # noqa: T201 - what the test reads
    sys.exit(0)  # the interpreter's usual end: it releases what is left


def main(target: str, waiting: str = "") -> None:
    client, unused = Client(target), Client(target)
    client.create(subject="ada")
    events = client.events(start="earliest")
    next(events)
    if waiting:
        threading.Thread(target=Client(waiting, timeout=600).authority, daemon=True).start()
        sys.stdin.readline()
    codes = []
    for _ in range(CHILDREN):
        pid = os.fork()
        if pid == 0:
            child(target, client, unused, events)
        codes.append(os.waitpid(pid, 0)[1])
    print("parent", kind_of(client.authority), *codes, flush=True)  # noqa: T201 - as above
    os._exit(0)


def _run(call: Callable[[], Coroutine[object, object, object]]) -> object:
    return asyncio.run(call())


def main_of_asyncio(target: str) -> None:
    """The same with the client for asyncio: open at the first fork, closed at the second."""
    client, codes = AsyncClient(target), list[int]()
    loop = asyncio.new_event_loop()
    loop.run_until_complete(client.authority())
    for closed in (False, True):
        if closed:
            loop.run_until_complete(client.close())
        pid = os.fork()
        if pid == 0:
            signal.alarm(PATIENCE)
            own = AsyncClient(target)
            endings = [kind_of(partial(_run, call)) for call in (client.authority, own.authority)]
            with Client(target) as other:
                print(*endings, kind_of(other.authority), flush=True)  # noqa: T201 - what the test reads
            os._exit(0)
        codes.append(os.waitpid(pid, 0)[1])
    loop.close()
    print("parent", *codes, flush=True)  # noqa: T201 - as above


if __name__ == "__main__":
    {"threads": main, "asyncio": main_of_asyncio}[sys.argv[2]](sys.argv[1], *sys.argv[3:])
