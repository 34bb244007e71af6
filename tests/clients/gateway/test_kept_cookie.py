"""A request that nobody has checked never costs the user the session: its cookie stays."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sessiond.app import App
from sessiond_client import Client, SessiondError
from sessiond_client.gateway import Action, CookieNames, Exchange, Gateway, GatewaySettings, WebRequest, account, run


def exchange(gateway: Gateway, method: str, headers: dict[str, str]) -> Exchange:
    """An exchange for a request with these headers."""

    def values(name: str) -> tuple[str, ...]:
        return (headers[name],) if name in headers else ()

    return Exchange(gateway, WebRequest(method=method, path="/", host="shop.example", headers=values))


def page_of_an_error(client: Client, refused: Exchange) -> list[str]:
    """What the page of an error does that notes a message and has a form: the names of the headers that it gets."""
    assert run(client, account.csrf_token(refused)) == ""
    refused.values["message"] = "Please try again."
    assert run(client, refused.save()) is False
    return [name for name, _ in refused.headers()]


async def test_a_forged_request_does_not_replace_the_cookie(app: App) -> None:
    """A request from another site is refused, and the page that says so sets no cookie, whatever it contains."""

    def visit() -> Any:
        with Client(app.address) as client:
            for headers in ({"sec-fetch-site": "cross-site"}, {"origin": "https://evil.example"}):
                forged = exchange(Gateway(), "POST", headers)
                run(client, forged.open())
                assert forged.gate() is Action.CSRF_ERROR
                assert "Set-Cookie" not in page_of_an_error(client, forged)

    await asyncio.to_thread(visit)


async def test_a_request_whose_question_was_wrong_does_not_replace_the_cookie(app: App) -> None:
    """If the authority refuses the question itself, the page that says so sets no cookie."""

    def visit() -> Any:
        gateway = Gateway(settings=GatewaySettings(cookie_names=CookieNames("id", "id")))
        with Client(app.address, application="unknown") as client:
            asked = exchange(gateway, "GET", {"cookie": "id=x"})
            with pytest.raises(SessiondError, match="unknown"):
                run(client, asked.open())
            assert "Set-Cookie" not in page_of_an_error(client, asked)

    await asyncio.to_thread(visit)
