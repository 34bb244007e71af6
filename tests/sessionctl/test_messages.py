"""What commands say if something is wrong: it names what the operator typed, and the remedy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from sessionctl.exits import Exit
from sessionctl.settings import Settings
from sessionctl.unreachable import unreachable
from sessiond.app import App
from tests.sessionctl.operator import Operator
from tests.sessionctl.test_callers import first, write_key
from tests.support.certificates import Authority, server_files
from tests.support.server import config_for, serving

CA, CLIENTS = Authority("servers"), Authority("clients")
REFUSED = "failed to connect to all addresses; last error: UNKNOWN: ipv6:%5B::1%5D:{port}: Failed to connect to remote"
REFUSED += " host: connect: Connection refused (111)"


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[App]:
    """An authority with an application `shop`."""
    async with serving(config_for(tmp_path, '[applications.shop]\npreset = "owasp-low"\n')) as app:
        yield app


def settings_for(target: str, **more: Any) -> Settings:
    """The settings of a command that calls `target`."""
    return Settings(target, "--target", "", "table", 5.0, **more)


async def test_a_refused_address_is_not_the_reason_if_another_one_accepts(tmp_path: Path) -> None:
    """At a host with two addresses, the reason is that of the address with a server, whichever gRPC tried last."""
    ca = str(CA.write(tmp_path, "ca"))
    secure = server_files(CA, tmp_path / "tls", CLIENTS)
    with capture_logs():
        async with serving(config_for(tmp_path, transport="grpcio", **secure)) as app:
            port = app.address.rpartition(":")[2]
            said, target = REFUSED.format(port=port), f"localhost:{port}"
            plain = await asyncio.to_thread(unreachable, said, settings_for(target))
            unproven = settings_for(target, tls=True, files={"tls_ca": ca})
            without = await asyncio.to_thread(unreachable, said, unproven)
    assert plain.startswith(f"{target} is not a sessiond server, or it expects TLS; ")
    assert without.startswith(f"{target} closed the connection; it may require a certificate of the client; ")
    stopped = await asyncio.to_thread(unreachable, said, settings_for(target))
    assert stopped.startswith(f"nothing listens at {target}; ")


async def test_a_command_without_a_key(operator: Operator, tmp_path: Path) -> None:
    """Without a key the error names the option and the variable; with an unknown one, the file."""
    await first(operator, tmp_path)
    without = await operator.anywhere("list")
    assert without.exit_code == Exit.FAILED
    assert without.stderr == f"Error: {operator.target} requires a key; use --key-file or SESSIOND_KEY_FILE\n"
    other = write_key(tmp_path, "sessiond_aaaaaaaaaa_" + "A" * 43, "other.key")
    wrong = await operator.anywhere("list", "--key-file", other)
    assert wrong.stderr.startswith(f"Error: unknown or revoked key in {other}; ask an admin for a new one")


async def test_the_first_caller_is_an_admin(operator: Operator, tmp_path: Path) -> None:
    """The first caller must be an admin and the last admin stays; each refusal has the remedy."""
    early = await operator.anywhere("callers", "add", "shop", "--role", "issuer")
    assert "the first caller must be an admin for all applications, with a key: `sessionctl callers add ops --role" in (
        early.stderr
    )
    key_file = await first(operator, tmp_path)
    late = await operator.anywhere("callers", "revoke", "ops", "--key-file", key_file)
    assert late.stderr == 'Error: "ops" is the last admin for all applications with a key; add another one first\n'


async def test_a_role_for_an_application_that_is_not_there(operator: Operator, tmp_path: Path) -> None:
    """Such a role is granted, with a note; one for a known application, or for all, has none."""
    key_file = await first(operator, tmp_path)
    add = ("callers", "add", "--key-file", key_file, "--role")
    unknown = await operator.anywhere(*add, "issuer:shopp", "one")
    assert unknown.exit_code == 0
    assert "note: no application 'shopp' (configured: " in unknown.stderr
    for role, name in (("issuer:shop", "two"), ("issuer", "three")):
        assert "note:" not in (await operator.anywhere(*add, role, name)).stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("callers", "rotate", "nobody"), "no caller 'nobody'; see `sessionctl callers`"),
        (("callers", "revoke", "nobody"), "no caller 'nobody'; see `sessionctl callers`"),
        (("keyring", "promote", "abcdef01"), "no key starts with abcdef01; the keys are "),
        (("keyring", "promote"), "there is no new key; add one first (sessionctl keyring add)"),
        (("keyring", "retire", "1234"), "must be the first 8 to 32 digits, as `sessionctl keyring status` shows them"),
        (("callers", "certificates", "shop"), "specify --add or --remove"),
        (("revoke", "--token"), "as in `sessionctl revoke --token < token.txt`"),
        (("validate",), "as in `sessionctl validate < token.txt`"),
        (("revoke", "123"), "as `sessionctl list` shows it; pass a token on standard input, with --token"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
async def test_a_message_names_what_was_typed(operator: Operator, arguments: tuple[str, ...], message: str) -> None:
    """An error has no names of calls or fields, and blames no application for what belongs to none."""
    result = await operator.anywhere(*arguments)
    assert result.exit_code != 0
    assert message in result.stderr.replace("main ", "sessionctl ")
    assert "in application" not in result.stderr
    assert "GetKeyRing" not in result.stderr


async def test_a_session_id_where_no_token_will_do(operator: Operator) -> None:
    """A command that takes no token does not ask for one."""
    result = await operator.anywhere("show", "123")
    assert result.exit_code == Exit.USAGE
    assert "SESSION_ID: not a session id" in result.stderr
    assert "token" not in result.stderr


async def test_a_field_is_named_by_its_option(operator: Operator) -> None:
    """A conflict names --expected-version, and a refused retirement --log-out-sessions."""
    created = await operator.open()
    session_id = str(created.session.session_id)
    conflict = await operator.type("data", "set", session_id, "a=1", "--expected-version", "7")
    assert "Error: --expected-version: the data is at version " in conflict.stderr
    (ring,) = await operator.json("keyring", "status")
    for step in (("add",), ("promote",)):
        assert (await operator.anywhere("keyring", *step)).exit_code == 0
    retired = await operator.anywhere("keyring", "retire", ring["keys"][0]["fingerprint"])
    assert "(--log-out-sessions)" in retired.stderr


async def test_a_cache_that_cannot_be_reached(operator: Operator) -> None:
    """If a cache cannot be reached, the error names it and --cache, and not the target."""
    result = await operator.type("verify-caches", "--cache", "127.0.0.1:1")
    assert result.exit_code == Exit.UNREACHABLE
    assert "nothing listens at 127.0.0.1:1; " in result.stderr
    assert "or name another server with --cache" in result.stderr
    assert operator.target not in result.stderr
