"""Serves a request, forks, and serves in both processes. Prints who could.

python forking.py ADDRESS
"""

from __future__ import annotations

import os
import sys
import warnings

from tests.support.django_project import configure


def main(address: str) -> None:
    """Serve, fork, serve."""
    configure()
    from django.conf import settings
    from django.db import connections
    from django.test import Client

    settings.SESSIOND = {"TARGET": address, "TIMEOUT": 20.0}
    client = Client(HTTP_HOST="localhost")

    def serve(who: str) -> None:
        answer = client.post("/cart", {"item": who}, secure=True)
        assert answer.status_code == 200, answer.content
        assert client.get("/cart", secure=True).json()["cart"][-1] == who
        sys.stdout.write(f"{who}\n")
        sys.stdout.flush()

    serve("parent")
    connections.close_all()
    warnings.simplefilter("ignore", DeprecationWarning)
    child = os.fork()
    if child == 0:
        serve("child")
        os._exit(0)
    _, status = os.waitpid(child, 0)
    serve("parent")
    sys.stdout.flush()
    os._exit(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main(sys.argv[1])
