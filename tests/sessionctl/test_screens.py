"""What every command of `sessionctl` shows on terminals of 80 and 120 columns, kept in `screens/`.

After an intended change write the files again, look at the difference, and commit it:

    SESSIONCTL_SCREENS=write python -m pytest tests/sessionctl/test_screens.py
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from sessionctl import backing_up, caches, choosing, copying, doctor, main, reloading, restoring, top
from sessionctl.contexts import Context, Contexts
from sessionctl.findings import Finding, ok, problem, warning
from sessionctl.screen import Screen, columns_of
from sessionctl.settings import Settings
from sessionctl.top_state import Activity, Frame
from sessiond import config
from sessiond.config import Departure
from sessiond.copy_store import Copied, Counts, KeyFile
from sessiond.domain.values import Revision
from sessiond.restore_store import Restored
from sessiond_client import BackupFacts
from tests.sessionctl.fake import ADA, ENDED, EVENTS, GUEST, LOCKS, LONG, NOW, FakeClient

FOLDER = Path(__file__).parent / "screens"
WRITE = os.environ.get("SESSIONCTL_SCREENS") == "write"
WIDTHS = (80, 120)
DEPARTURES = [
    Departure(
        application="",
        key="server.allow_remote_plaintext",
        origin="sessiond.toml:3",
        message="tokens may be sent unencrypted; session secrets SHALL be sent over an authenticated protected channel",
        source="NIST SP 800-63B-4 section 5.1",
    ),
    Departure(
        application="shop",
        key="idle_timeout",
        origin="sessiond.toml:6",
        message="40m without activity; 15 to 30 minutes are common",
        source="OWASP Session Management Cheat Sheet, Session Expiration",
    ),
]
PROBLEMS = (
    "broken.toml:2: applications.shop.idle_timout: no such key; did you mean 'idle_timeout'?\n"
    'broken.toml:3: applications.shop.preset: must be one of "owasp-low", "owasp-high", "nist-aal1", "nist-aal2", '
    '"nist-aal3"; did you mean "owasp-high"?'
)
RELOADED: dict[str, Any] = {
    "pid": 4711,
    "outcome": "reloaded",
    "changed": {"desk": "added", "shop": "changed: idle_timeout, guessing.lock_after"},
    "restart_required": ["server.max_subscribers"],
    "problems": [],
}
COPIED = Copied(
    authority_id=bytes.fromhex("019bc07000007a1b8c2d3e4f5a6b7c8d"),
    revision=48_213,
    horizon=12_000,
    counts=[
        Counts("sessions", 20_481, 20_481),
        Counts("session_labels", 7, 7),
        Counts("session_data", 33_002, 33_002),
        Counts("answers", 112, 112),
        Counts("events", 36_213, 36_213),
        Counts("callers", 3, 3),
    ],
    key_file=KeyFile.NEEDED,
)
CONTEXTS = Contexts(
    "prod",
    {
        "local": Context("unix:/run/sessiond/sessiond.sock"),
        "prod": Context(
            "sessiond.internal.example:7443",
            application="shop",
            tls=True,
            tls_ca="/etc/sessiond/tls/ca.pem",
            tls_certificate="/home/ada/.config/sessiond/ada.crt",
            tls_key="/home/ada/.config/sessiond/ada.key",
            key_file="/home/ada/.config/sessiond/caller.key",
        ),
        "public": Context("sessions.example.com:443", tls=True),
    },
)
FINDINGS = [
    ok("clock", "synchronized, as timedatectl says"),
    warning(
        "configuration",
        "2 settings are weaker than OWASP, ASVS or NIST recommend in /etc/sessiond/sessiond.toml",
        "`sessionctl check-config /etc/sessiond/sessiond.toml` shows them",
    ),
    problem(
        "keys",
        "other users can access the key file /var/lib/sessiond/sessiond.key",
        "run: chmod 600 /var/lib/sessiond/sessiond.key",
    ),
    ok("server", "version 0.1.0 answers at unix:/run/sessiond/sessiond.sock, at revision 48,213"),
    problem(
        "replicas",
        "the policies of east-2 differ from those of unix:/run/sessiond/sessiond.sock",
        "give both the same configuration, and run `sessionctl reload` on both machines",
    ),
]
FRAME = Frame(
    time=NOW,
    authority=FakeClient().authority(),
    unreachable_since=None,
    reason="",
    restart_time=NOW - timedelta(minutes=4),
    seconds=2.0,
    changes_per_second=37.5,
    applications=(
        Activity("desk", 312, True, {"SESSION_CREATED": 0.5}, {"SESSION_CREATED": 61}),
        Activity(
            "shop",
            10_000,
            False,
            {"SESSION_CREATED": 21.0, "SESSION_AUTHENTICATED": 4.5, "SESSION_RENEWED": 7.5, "SESSION_REVOKED": 4.0},
            {"SESSION_CREATED": 2_204, "HIJACK_SUSPECTED": 1, "SOURCE_LOCKED": 1},
        ),
    ),
    alarms=(EVENTS[3], EVENTS[2]),
    locks=LOCKS,
    notes=(),
)
LATE = "sidecar.a-rather-long-name-of-a-host.internal.example:7443"
BACKED_UP = BackupFacts(
    time=NOW,
    size=48_234_496,
    authority_id="019bc070-0000-7a1b-8c2d-3e4f5a6b7c8d",
    revision=48_213,
    server_version="0.1.0",
    schema_version=8,
    key_fingerprints=("5aedb482" * 4,),
)
RESTORED = Restored(20_481, 20_481, Revision(68_694), Path("/var/lib/sessiond/before-restore-20270115T080000Z"), True)
DESCRIBED: dict[str, Any] = {
    "authority_id": BACKED_UP.authority_id,
    "time": "2027-01-15T08:00:00.000Z",
    "keys": [*BACKED_UP.key_fingerprints],
}
SCREENS: dict[str, tuple[str, ...]] = {
    "activity": ("activity", "--subject", "ada"),
    "authority": ("authority",),
    "backup": ("backup", "sessiond-2027-01-15.tar"),
    "callers": ("callers",),
    "callers-add": ("callers", "add", "shop-web", "--role", "issuer:shop", "--role", "validator:shop"),
    "callers-add-certificate": (
        "callers",
        "add",
        "shop-web",
        "--role",
        "issuer:shop",
        "--certificate",
        "spiffe://example.org/shop-web",
    ),
    "callers-certificates": ("callers", "certificates", "shop-web", "--add", "shop-web.internal.example"),
    "callers-revoke": ("callers", "revoke", "shop-web"),
    "callers-rotate": ("callers", "rotate", "shop-web", "--overlap", "24h"),
    "check-config": ("check-config",),
    "check-config-problems": ("check-config", "broken.toml"),
    "context-add": (
        "context",
        "add",
        "stage",
        "--target",
        "stage.example:7443",
        "--tls-ca",
        "/etc/sessiond/tls/ca.pem",
    ),
    "context-list": ("context", "list"),
    "context-remove": ("context", "remove", "prod"),
    "context-use": ("context", "use", "local"),
    "create": ("create", "--subject", "ada"),
    "create-limit": ("create", "--subject", "full"),
    "data-delete": ("data", "delete", ADA.session_id, "cart"),
    "data-get": ("data", "get", ADA.session_id),
    "data-set": ("data", "set", ADA.session_id, "theme=dark"),
    "doctor": ("doctor",),
    "list": ("list",),
    "keyring-add": ("keyring", "add"),
    "keyring-promote": ("keyring", "promote", "e03a7715"),
    "keyring-retire": ("keyring", "retire", "4b7e0d91"),
    "keyring-status": ("keyring", "status"),
    "list-all": ("list", "--state", "all"),
    "locks": ("locks", "--application", "shop"),
    "locks-clear": ("locks", "clear", "203.0.113.9/32"),
    "policies": ("policies",),
    "reload": ("reload", "--data", "data"),
    "report": ("report", ADA.session_id, "--reason", "odd transfers"),
    "restore": ("restore", "sessiond-2027-01-15.tar", "/var/lib/sessiond", "--end-sessions"),
    "revoke": ("revoke", ADA.session_id),
    "revoke-subject": ("revoke", "--subject", "ada"),
    "show": ("show", ADA.session_id),
    "show-ended": ("show", ENDED.session_id),
    "show-guest": ("show", GUEST.session_id),
    "show-long": ("show", LONG.session_id),
    "status": ("status",),
    "store-copy": ("store", "copy", "/var/lib/sessiond", "postgres://sessiond@db.example/sessiond"),
    "top": ("top", "--once", "--interval", "0.1"),
    "validate": ("validate",),
    "validate-insufficient": ("validate", "--min-level", "3"),
    "verify-caches": ("verify-caches", "--cache", "10.0.0.7:7443", "--cache", "unix:/run/sessiond/sidecar.sock"),
    "verify-caches-late": ("verify-caches", "--cache", "10.0.0.7:7443", "--cache", LATE),
    "watch": ("watch", "--earliest", "--checkpoints"),
}
INPUT = {"validate": "good\n", "validate-insufficient": "low\n"}
WIDE = (
    "verify-caches",
    "doctor",
    "top",
    "activity",
    "callers",
    "context-list",
    "data-get",
    "keyring-status",
    "list-all",
    "locks",
    "policies",
    "show",
    "status",
    "watch",
)


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command that is shown in a page of help, by its path."""
    context = click.Context(group)
    for name in group.list_commands(context):
        yield (*path, name)
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


NO_FILE = config.load_config(None)
HELP = [(), *commands(main)]


def load(file: Path) -> config.Config:
    """Stands in for `load_config`: one of two files has errors."""
    if file.name == "broken.toml":
        raise config.BadConfig(PROBLEMS)
    return NO_FILE


def found(*_: object) -> list[Finding]:
    """Stands in for the checks."""
    return FINDINGS


def measured(asked: Settings, addresses: Sequence[str], bound: float, *, awaited: bool) -> list[caches.Measured]:
    """Stands in for the measurement: one cache keeps to no bound."""
    return [
        caches.Measured(
            cache=address,
            revocation="awaited" if awaited else "plain",
            yes_for=timedelta(seconds=10.2 if address == LATE else 0 if awaited else 0.0128),
            bound=timedelta(seconds=bound),
            asked=412,
            still_yes=address == LATE,
        )
        for address in addresses
    ]


@pytest.fixture(autouse=True)
def fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No server and no files, only fixed answers."""
    monkeypatch.setattr(Settings, "client", lambda self: FakeClient())
    monkeypatch.setattr(reloading, "_asked_to_reload", lambda folder, patience: RELOADED)
    monkeypatch.setattr(copying, "_carry_out", lambda source, destination: COPIED)
    monkeypatch.setattr(backing_up, "_carry_out", lambda file: (BACKED_UP, "00" * 32))
    monkeypatch.setattr(restoring, "_carry_out", lambda *arguments, **more: (RESTORED, DESCRIBED))
    monkeypatch.setattr(caches, "_measured", measured)
    monkeypatch.setattr(doctor, "_findings", found)
    monkeypatch.setattr(top, "_begin", lambda *_, **__: lambda: FRAME)
    monkeypatch.setattr(config, "load_config", load)
    monkeypatch.setattr(choosing, "load_contexts", lambda: CONTEXTS)
    monkeypatch.setattr(choosing, "save_contexts", lambda _: None)
    monkeypatch.setattr(choosing, "checked_connection", lambda _: None)
    monkeypatch.setattr(config, "departures", lambda _: DEPARTURES)


def shown(arguments: tuple[str, ...], width: int, stdin: str = "") -> str:
    """What a terminal of this width shows, with the command and its exit code."""
    screen = Screen(width=width, colours=False, now=lambda: NOW)
    result = CliRunner().invoke(main, arguments, input=stdin, obj=screen, terminal_width=width)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return f"$ sessionctl {' '.join(arguments)}\n{result.output}[exit code {result.exit_code}]\n"


def compare(name: str, text: str) -> None:
    """Compare with the file of that name, or write it."""
    file = FOLDER / f"{name}.txt"
    if WRITE:
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8"), f"{file.name} differs; see the top of this test's file"


def assert_fits(text: str, width: int) -> None:
    """No line of a result is wider than the terminal. Lines of an error may be: they are never cut."""
    for line in text.splitlines()[1:]:
        assert line.startswith("Error: ") or columns_of(line) <= width, line


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", SCREENS)
def test_a_result(name: str, width: int) -> None:
    """The result of a command is as in its file, and no line is wider than the terminal."""
    text = shown(SCREENS[name], width, INPUT.get(name, ""))
    assert_fits(text, width)
    compare(f"{name}.{width}", text)


@pytest.mark.parametrize("name", WIDE)
def test_a_wide_result(name: str) -> None:
    """With -o wide nothing is cut, times are RFC 3339, and the terminal's width does not matter."""
    arguments = (*SCREENS[name], "-o", "wide")
    text = shown(arguments, 80)
    assert text == shown(arguments, 120)
    assert "…" not in text
    assert not re.search(r"\d[smhd] ago|in \d+[smhd]\b", text)
    compare(f"{name}.wide", text)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("path", HELP, ids=lambda path: "-".join(path) or "sessionctl")
def test_a_page_of_help(path: tuple[str, ...], width: int) -> None:
    """Each page of help is as in its file, and no line is wider than the terminal."""
    text = shown((*path, "--help"), width)
    assert_fits(text, width)
    compare(f"help{''.join(f'-{word}' for word in path)}.{width}", text)


def test_every_command_has_a_screen() -> None:
    """Each command that gives a result is among the screens."""
    groups = {("context",), ("data",), ("store",)}
    others = {("completion",)}  # a script of click's, which test_completion.py runs
    seen = {tuple(word for word in arguments[:2]) for arguments in SCREENS.values()}
    assert {path for path in commands(main) if path not in groups | others} <= {
        path for arguments in seen for path in (arguments, arguments[:1])
    }


def test_no_file_is_left_over() -> None:
    """Each file in `screens/` belongs to a screen."""
    names = {f"{name}.{width}" for name in SCREENS for width in WIDTHS} | {f"{name}.wide" for name in WIDE}
    names |= {f"help{''.join(f'-{word}' for word in path)}.{width}" for path in HELP for width in WIDTHS}
    assert {file.stem for file in FOLDER.iterdir()} == names


@pytest.mark.parametrize("width", [20, 40])
@pytest.mark.parametrize(
    "name",
    ["list-all", "activity", "callers", "keyring-status", "watch", "show", "policies", "check-config", "doctor", "top"],
)
def test_a_narrow_terminal(name: str, width: int) -> None:
    """However narrow the terminal is, rows are cut and not wrapped."""
    lines = shown(SCREENS[name], width).splitlines()
    assert all(columns_of(line) <= width for line in lines[1:-1])
