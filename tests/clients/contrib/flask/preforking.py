"""A program that uses a site, then forks two workers that use it too; see test_setting_up. Its argument is the target.

It prints a line for itself, one for each worker, and one for itself at the end.
"""

from __future__ import annotations

import os
import signal
import sys

from tests.clients.contrib.flask.site import Browser, running

PATIENCE = 20
"""Seconds after which a worker that hangs is ended by a signal."""


def report(name: object, browser: Browser) -> None:
    cart = (browser.request("GET", "/cart").json or {})["cart"]
    print(name, browser.request("GET", "/").text, cart, flush=True)  # noqa: T201 - what the test reads


def post(browser: Browser, path: str) -> None:
    csrf = (browser.request("GET", "/token").json or {})["csrf"]
    assert browser.request("POST", path, {"X-CSRF-Token": csrf}).status_code < 400


def main(target: str) -> None:
    with running(target) as site:
        browser = Browser(site)
        post(browser, "/login")
        post(browser, "/cart?item=tea")
        report("parent", browser)
        for number in range(2):
            pid = os.fork()
            if pid == 0:
                signal.alarm(PATIENCE)
                post(browser, f"/cart?item={number}")
                report(os.getpid(), browser)
                os._exit(0)
            os.waitpid(pid, 0)
        report("parent", browser)


if __name__ == "__main__":
    main(*sys.argv[1:])
