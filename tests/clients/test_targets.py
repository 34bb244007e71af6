"""Where a client sends the key of its caller."""

from __future__ import annotations

import pytest

from sessiond_client import AsyncClient, Client, InvalidArgument
from sessiond_client.targets import is_local, problem_of_address

CLIENTS: list[type[Client | AsyncClient]] = [Client, AsyncClient]
KEY = "sessiond_canary"
LOCAL = [
    "127.0.0.1:7443",
    "127.8.8.8",
    "localhost:7443",
    "[::1]:7443",
    "::1",
    "unix:/run/sessiond.sock",
    "unix-abstract:sessiond",
    "dns:///localhost:7443",
    "dns:127.0.0.1:7443",
    "ipv4:127.0.0.1:7443,127.0.0.2:7443",
    "ipv6:[::1]:7443",
]
REMOTE = [
    "sessiond:7443",
    "10.0.0.1:7443",
    "127.0.0.1.example:7443",
    "localhost.example",
    "[fe80::1]:7443",
    "ipv4:127.0.0.1:7443,10.0.0.1:7443",
    "dns://1.1.1.1/localhost:7443",
    "xds:///localhost",
    "[::1",
    "",
]


@pytest.mark.parametrize(
    ("target", "expected"), [*((target, True) for target in LOCAL), *((target, False) for target in REMOTE)]
)
def test_local_targets(target: str, expected: bool) -> None:
    """Only this machine receives what is sent to a local target; a form that is not known is not local."""
    assert is_local(target) is expected


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_key_does_not_leave_the_machine_unencrypted(kind: type[Client | AsyncClient]) -> None:
    """A client with a key and without TLS is refused for another machine, with the remedies and without the key."""
    with pytest.raises(InvalidArgument) as error:
        kind("sessiond:7443", key=KEY)
    assert str(error.value) == (
        "key: would be sent to sessiond:7443 unencrypted; use TLS, a Unix socket or a loopback address, or set "
        "allow_remote_plaintext if something else encrypts the connection"
    )


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_key_over_what_is_encrypted(kind: type[Client | AsyncClient], monkeypatch: pytest.MonkeyPatch) -> None:
    """With TLS, for this machine, or where the application allows it, a client with a key is made; and without one."""
    assert kind("sessiond:7443", key=KEY, tls=True).target == "sessiond:7443"
    assert kind("sessiond:7443", key=KEY, allow_remote_plaintext=True).target == "sessiond:7443"
    assert kind("localhost:7443", key=KEY).target == "localhost:7443"
    assert kind("sessiond:7443").target == "sessiond:7443"
    monkeypatch.setenv("SESSIOND_TARGET", "sessiond:7443")
    monkeypatch.setenv("SESSIOND_ALLOW_REMOTE_PLAINTEXT", "true")
    assert kind.from_environment(key=KEY).target == "sessiond:7443"
    monkeypatch.setenv("SESSIOND_ALLOW_REMOTE_PLAINTEXT", "no")
    with pytest.raises(InvalidArgument, match="unencrypted"):
        kind.from_environment(key=KEY)


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("localhost", "'localhost' has no port; write HOST:PORT or unix:/path, such as 'localhost:7443'"),
        ("http://localhost:7443", "is a URL; write it as HOST:PORT, such as 'localhost:7443'"),
        ("https://sessiond.example:7443/v1", "such as 'sessiond.example:7443'"),
        ("::1", "is not an address; write HOST:PORT or unix:/path, and an IPv6 address as [::1]:7443"),
        ("localhost:http", "is not an address"),
        ("localhost:", "is not an address"),
        ("localhost:0", "has no valid port; a port is a number from 1 to 65535"),
        ("localhost:65536", "has no valid port"),
        ("unix:", "is not an address"),
        ("", "is empty; write HOST:PORT or unix:/path"),
    ],
)
def test_a_malformed_target(kind: type[Client | AsyncClient], target: str, problem: str) -> None:
    """A target without a port, a URL and what is no address are refused at once, with the right form."""
    with pytest.raises(InvalidArgument) as error:
        kind(target)
    assert error.value.violations[0].field == "target"
    assert problem in error.value.violations[0].description


@pytest.mark.parametrize(
    "target",
    [
        *("a:1", "[::1]:7443", "unix:/run/s.sock", "unix-abstract:s", "dns:///a:7443", "dns://1.1.1.1/a:7443"),
        *("ipv4:127.0.0.1:1,127.0.0.2:1", "ipv6:[::1]:7443", "xds:///sessiond"),
    ],
)
def test_targets_of_grpc(target: str) -> None:
    """HOST:PORT is accepted, and so is every form with a scheme that gRPC resolves."""
    client = Client(target)
    assert client.target == target
    client.close()


@pytest.mark.parametrize("address", ["a\x1b[2Jb", "host\n:7443", "http://a\x1b/", "\u202e:7443x"])
def test_a_wrong_address_cannot_command_a_terminal(address: str) -> None:
    """What is wrong with an address is said in one printable line, whatever the address contains."""
    problem = problem_of_address(address)
    assert problem
    assert problem.isprintable()
