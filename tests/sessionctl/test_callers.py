"""Callers at the command line: adding, rotating and revoking them, and the key file of the tool itself."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sessionctl.exits import Exit
from tests.sessionctl.operator import Operator

KEY = re.compile(r"sessiond_[a-z2-7]{10}_[A-Za-z0-9_-]{43}")


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key in the environment."""
    monkeypatch.delenv("SESSIOND_KEY_FILE", raising=False)


def write_key(folder: Path, key: str, name: str = "ops.key", mode: int = 0o600) -> str:
    """A file with a key."""
    file = folder / name
    file.touch(mode)
    file.write_text(key + "\n", encoding="utf-8")
    return str(file)


async def first(operator: Operator, folder: Path) -> str:
    """The key file of the first caller."""
    result = await operator.anywhere("callers", "add", "ops", "--role", "admin", "--key-only")
    assert KEY.fullmatch(result.stdout.strip())
    return write_key(folder, result.stdout.strip())


async def test_no_callers(operator: Operator) -> None:
    """Without callers the list says that everyone may call, on standard error; JSON is empty."""
    result = await operator.anywhere("callers")
    assert (result.stdout, result.exit_code) == ("", 0)
    assert result.stderr == "no callers: everyone who can connect may make every call\n"
    assert await operator.json("callers") == []


async def test_the_life_of_a_caller(operator: Operator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller is added, listed, rotated and revoked; the key comes from the option or the environment."""
    key_file = await first(operator, tmp_path)
    added = await operator.anywhere("callers", "add", "shop", "--role", "issuer:shop", "--key-file", key_file)
    assert added.exit_code == 0
    assert re.search(rf"^added: shop\nkey: {KEY.pattern}$", added.stdout, re.MULTILINE)
    assert "not shown again" in added.stderr
    monkeypatch.setenv("SESSIOND_KEY_FILE", key_file)
    rotated = await operator.anywhere("callers", "rotate", "shop", "--overlap", "24h")
    assert KEY.search(rotated.stdout)
    listed = await operator.anywhere("callers")
    assert re.search(r"^shop +issuer:shop +[a-z2-7]{10} +[a-z2-7]{10} ends in 1d", listed.stdout, re.MULTILINE)
    assert not KEY.search(listed.stdout)
    (_, shop) = await operator.json("callers")
    assert (shop["name"], [grant["role"] for grant in shop["grants"]]) == ("shop", ["ISSUER"])
    revoked = await operator.anywhere("callers", "revoke", "shop", "--reason", "gone")
    assert revoked.stdout == "revoked: shop\n"
    assert [caller["name"] for caller in await operator.json("callers")] == ["ops"]


async def test_json_has_the_key_once(operator: Operator, tmp_path: Path) -> None:
    """JSON of a new caller has the key, and that of the list has none."""
    key_file = await first(operator, tmp_path)
    (added,) = await operator.json("callers", "add", "shop", "--role", "validator", "--key-file", key_file)
    assert KEY.fullmatch(added["key"])
    assert not any("key" in caller for caller in await operator.json("callers", "--key-file", key_file))


async def test_without_a_key_the_server_refuses(operator: Operator, tmp_path: Path) -> None:
    """From the first caller on a command without a key, or with that of a caller without the role, exits with 1."""
    key_file = await first(operator, tmp_path)
    refused = await operator.anywhere("list")
    assert refused.exit_code == Exit.FAILED
    assert "requires a key; use --key-file" in refused.stderr
    added = await operator.anywhere(
        "callers", "add", "edge", "--role", "validator", "--key-only", "--key-file", key_file
    )
    edge = write_key(tmp_path, added.stdout.strip(), "edge.key")
    denied = await operator.anywhere("list", "--key-file", edge)
    assert denied.exit_code == Exit.FAILED
    assert 'caller "edge" may not call ListSessions' in denied.stderr
    assert not KEY.search(refused.stderr + denied.stderr)


@pytest.mark.parametrize("role", ["", "owner", "Issuer", "issuer:", ":shop", "issuer shop"])
async def test_what_is_no_role(operator: Operator, role: str) -> None:
    """A role that does not exist is wrong usage, with those that do."""
    result = await operator.anywhere("callers", "add", "shop", "--role", role)
    assert result.exit_code == Exit.USAGE
    assert "write one of validator, issuer, subscriber, operator, admin" in result.stderr


@pytest.mark.parametrize(
    ("text", "mode", "problem"),
    [
        ("", 0o600, "does not hold a key"),
        ("two words", 0o600, "does not hold a key"),
        ("sessiond_aaaaaaaaaa_x sessiond_", 0o600, "does not hold a key"),
        ("sessiond_" + "a" * 5000, 0o600, "does not hold a key"),
        ("canaryé", 0o600, "does not hold a key"),
        ("sessiond_aaaaaaaaaa_" + "A" * 43, 0o604, "can be read by everyone; run: chmod 600"),
    ],
)
@pytest.mark.parametrize("how", ["--key-file", "SESSIOND_KEY_FILE"])
async def test_a_key_file_that_cannot_be_used(
    operator: Operator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, text: str, mode: int, problem: str
) -> None:
    """A key file that others can read, or that does not hold one key, is wrong usage, and its text is not shown."""
    file = write_key(tmp_path, text, mode=mode)
    arguments = ("--key-file", file) if how == "--key-file" else ()
    if not arguments:
        monkeypatch.setenv(how, file)
    result = await operator.anywhere("status", *arguments)
    assert result.exit_code == Exit.USAGE
    assert f"{how}: {file} {problem}" in result.stderr
    assert len(text) < 3 or text not in result.stderr.replace(file, "")


async def test_a_key_file_that_is_not_there(operator: Operator, tmp_path: Path) -> None:
    """A file that cannot be read is named with the reason."""
    result = await operator.anywhere("status", "--key-file", str(tmp_path / "none"))
    assert result.exit_code == Exit.USAGE
    assert f"--key-file: cannot read {tmp_path / 'none'}: No such file or directory" in result.stderr


async def test_the_option_counts_before_the_environment(
    operator: Operator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--key-file` overrides SESSIOND_KEY_FILE, and counts before and after the name of a command."""
    key_file = await first(operator, tmp_path)
    monkeypatch.setenv("SESSIOND_KEY_FILE", str(tmp_path / "none"))
    assert (await operator.anywhere("callers", "--key-file", key_file)).exit_code == 0
    assert (await operator.anywhere("--key-file", key_file, "callers")).exit_code == 0
