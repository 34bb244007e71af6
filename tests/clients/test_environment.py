"""A client of the authority that the environment names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sessiond_client import AsyncClient, Client, InvalidArgument, TlsFiles
from sessiond_client.tls import options_in
from tests.support.certificates import Authority

CLIENTS: list[type[Client | AsyncClient]] = [Client, AsyncClient]
VARIABLES = ("TARGET", "APPLICATION", "TLS", "TLS_CA", "TLS_CLIENT_CERTIFICATE", "TLS_CLIENT_KEY")


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(f"SESSIOND_{name}", raising=False)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, {"target": "127.0.0.1:7443"}),
        ({"TARGET": "", "APPLICATION": "", "TLS": "", "TLS_CA": ""}, {"target": "127.0.0.1:7443"}),
        ({"TARGET": "a:1", "APPLICATION": "shop"}, {"target": "a:1", "application": "shop"}),
        ({"TLS": "true"}, {"target": "127.0.0.1:7443", "tls": True}),
        ({"TLS": "off"}, {"target": "127.0.0.1:7443", "tls": False}),
        ({"TLS_CA": "ca.pem"}, {"target": "127.0.0.1:7443", "tls": TlsFiles(ca="ca.pem")}),
        (
            {"TLS": "1", "TLS_CLIENT_CERTIFICATE": "a.crt", "TLS_CLIENT_KEY": "a.key"},
            {"target": "127.0.0.1:7443", "tls": TlsFiles(certificate="a.crt", key="a.key")},
        ),
    ],
)
def test_the_variables(variables: dict[str, str], expected: dict[str, Any]) -> None:
    """Each variable sets its option; an empty one counts as not set."""
    assert options_in({f"SESSIOND_{name}": value for name, value in variables.items()}) == expected


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({"TLS": "maybe"}, "SESSIOND_TLS: must be true or false"),
        ({"TLS": "0", "TLS_CA": "a"}, "SESSIOND_TLS: is false, but SESSIOND_TLS_CA is set; unset one of them"),
    ],
)
def test_a_wrong_variable(variables: dict[str, str], problem: str) -> None:
    """A variable that cannot be used is named."""
    with pytest.raises(InvalidArgument) as error:
        options_in({f"SESSIOND_{name}": value for name, value in variables.items()})
    assert str(error.value) == problem


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_client_from_the_environment(
    kind: type[Client | AsyncClient], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A client takes what the environment says, and options count before it."""
    monkeypatch.setenv("SESSIOND_TARGET", "db.example:7443")
    monkeypatch.setenv("SESSIOND_APPLICATION", "shop")
    monkeypatch.setenv("SESSIOND_TLS_CA", str(Authority().write(tmp_path, "ca")))
    client = kind.from_environment()
    assert (client.target, client.application) == ("db.example:7443", "shop")
    assert kind.from_environment(application="desk").application == "desk"
    monkeypatch.setenv("SESSIOND_TLS_CA", "/no/ca.pem")
    with pytest.raises(InvalidArgument, match=r"tls\.ca: /no/ca\.pem cannot be read"):
        kind.from_environment()


@pytest.mark.parametrize("kind", CLIENTS)
def test_the_constructor_reads_no_variables(kind: type[Client | AsyncClient], monkeypatch: pytest.MonkeyPatch) -> None:
    """Only `from_environment` reads the environment: what is written in a program holds."""
    monkeypatch.setenv("SESSIOND_TLS_CA", "/no/ca.pem")
    monkeypatch.setenv("SESSIOND_APPLICATION", "shop")
    assert kind("127.0.0.1:7443").application == ""
