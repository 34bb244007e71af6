"""A program that forks while its clients make calls; see test_life. Its argument is the authority's address.

Writes a line for each child: what the parent's clients raised there, and whether a client of the child's own worked.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable

from sessiond_client import Client, Event, Events, SessiondError

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


def main(target: str) -> None:
    client, unused = Client(target), Client(target)
    client.create(subject="ada")
    events = client.events(start="earliest")
    next(events)
    stopped = threading.Event()

    def call_on() -> None:
        while not stopped.is_set():
            client.authority()

    threads = [threading.Thread(target=call_on) for _ in range(2)]
    for thread in threads:
        thread.start()
    codes = []
    for _ in range(CHILDREN):
        pid = os.fork()
        if pid == 0:
            child(target, client, unused, events)
        codes.append(os.waitpid(pid, 0)[1])
    stopped.set()
    for thread in threads:
        thread.join()
    print("parent", kind_of(client.authority), *codes, flush=True)  # noqa: T201 - as above


if __name__ == "__main__":
    main(sys.argv[1])
