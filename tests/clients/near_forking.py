"""A program that forks while its client has a near cache that is open; see test_near_cache.

Its argument is the authority's address. It writes a line for each child: what the parent's client raised and whether
its cache was open there, how a client of its own answered the second time, and how one that the parent had not used.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time

from sessiond_client import Client, SessiondError

CHILDREN = 3
PATIENCE = 20
"""Seconds after which a child that hangs is ended by a signal."""


def second_answer(client: Client, token: str) -> str:
    """Where the answer to a repeated question comes from."""
    client.validate(token)
    until = time.monotonic() + PATIENCE
    while client.near_cache is None or not client.near_cache.is_open:
        if time.monotonic() > until:
            return "never open"
        time.sleep(0.01)
    client.validate(token)
    before = client.near_cache.hits
    assert client.validate(token).valid
    return "hit" if client.near_cache.hits == before + 1 else "asked"


def child(target: str, client: Client, unused: Client, token: str) -> None:
    signal.alarm(PATIENCE)
    try:
        ending = "answered" if client.validate(token) else "empty"
    except SessiondError as error:
        ending = type(error).__name__
    assert client.near_cache is not None
    is_open = client.near_cache.is_open
    client.close()
    del client
    with Client(target, near_cache=True) as own:
        print(  # noqa: T201 - what the test reads
            f"{ending} {is_open}; own: {second_answer(own, token)}; unused: {second_answer(unused, token)}", flush=True
        )
    sys.exit(0)  # the interpreter's usual end: it releases what is left


def main(target: str) -> None:
    client, unused = Client(target, near_cache=True), Client(target, near_cache=True)
    token = client.create(subject="ada").token.reveal()
    assert second_answer(client, token) == "hit"
    codes = []
    for number in range(CHILDREN):
        held, done = threading.Event(), threading.Event()

        def hold(held: threading.Event = held, done: threading.Event = done) -> None:
            near = client._near
            assert near is not None
            with near.cache.lock:
                held.set()
                done.wait()

        if number == 1:  # as if the fork happened while an event is applied
            threading.Thread(target=hold, daemon=True).start()
            held.wait()
        pid = os.fork()
        if pid == 0:
            child(target, client, unused, token)
        done.set()
        codes.append(os.waitpid(pid, 0)[1])
    print("parent:", second_answer(client, token), *codes, flush=True)  # noqa: T201 - as above
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
