"""`check-config` of `sessiond` and of `sessionctl`: what it finds, and the exit code."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

import sessionctl
from sessionctl.clock import now
from sessionctl.screen import Screen
from sessiond import cli
from sessiond.cli import MISCONFIGURED
from sessiond.config import BadConfig, load_config

GOOD = "[applications.shop]\n"
WEAK = '[server]\nallow_remote_plaintext = true\n\n[applications.shop]\nidle_timeout = "40m"\n'
INHERITED = """[applications.shop]
preset = "nist-aal1"
remember_idle_timeout = "7d"
remember_absolute_timeout = "30d"
"""
SCATTERED = """[applications.shop]
preset = "nist-aal1"
cookie.clear_site_data = []
renewal_overlap = "6m"
absolute_timeout = "31d"
remember_idle_timeout = "7d"
remember_absolute_timeout = "31d"

[applications.desk]
login_timeout = "2h"
idle_timeout = "40m"
"""
BROKEN = '[applications.shop]\nidle_timout = "40m"\nabsolute_timeout = "soon"\n'


@pytest.fixture(params=[cli.main, sessionctl.main], ids=["sessiond", "sessionctl"])
def tool(request: pytest.FixtureRequest) -> click.Command:
    """Each of the two commands."""
    command: click.Command = request.param
    return command


def checked(tool: click.Command, path: Path, text: str, *options: str) -> Result:
    """The check of a file with this text."""
    path.write_text(text, encoding="utf-8")
    return run(tool, *options, str(path))


def run(tool: click.Command, *arguments: str) -> Result:
    """The command, whose standard output is not a terminal."""
    return CliRunner().invoke(tool, ["check-config", *arguments])


def test_a_good_file(tool: click.Command, tmp_path: Path) -> None:
    """A file that follows the guidance passes --strict and has no findings."""
    path = tmp_path / "s.toml"
    for options in ((), ("--strict",)):
        result = checked(tool, path, GOOD, *options)
        assert (result.exit_code, result.stdout) == (
            0,
            f"{path}: OK; nothing weaker than OWASP, ASVS or NIST recommend\n",
        )
    machine = checked(tool, path, GOOD, "--json", "--strict")
    assert (machine.exit_code, machine.stdout) == (0, "")


def test_departures_are_shown_and_pass(tool: click.Command, tmp_path: Path) -> None:
    """Each departure is a line with its place, key, message and source; the file can be used, so the exit code is 0."""
    path = tmp_path / "s.toml"
    result = checked(tool, path, WEAK)
    assert result.exit_code == 0
    authority, shop, summary = result.stdout.splitlines()
    assert authority.startswith(f"{path}:2: server.allow_remote_plaintext: ")
    assert authority.endswith("[NIST SP 800-63B-4 section 5.1]")
    assert shop.startswith(f"{path}:5: applications.shop.idle_timeout: 40m without activity; 15 to 30 minutes")
    assert shop.endswith("[OWASP Session Management Cheat Sheet, Session Expiration]")
    assert summary == f"{path}: OK; 2 settings weaker than OWASP, ASVS or NIST recommend"
    assert "\x1b" not in result.output


def test_a_preset_is_an_origin_too(tool: click.Command, tmp_path: Path) -> None:
    """The origin of a departure that comes from a preset is the preset."""
    lines = checked(tool, tmp_path / "s.toml", INHERITED).stdout.splitlines()
    assert [line for line in lines if line.startswith("preset nist-aal1: applications.shop.idle_timeout: ")]


def test_departures_are_in_the_order_of_the_file(tool: click.Command, tmp_path: Path) -> None:
    """The departures of each application are in the order of the file, and those of its preset come last."""
    path = tmp_path / "s.toml"
    *lines, _ = checked(tool, path, SCATTERED).stdout.splitlines()
    places = [line.removeprefix(f"{path}:").split(":")[0] for line in lines]
    assert places == ["3", "4", "5", "6", "7", "preset nist-aal1", "10", "11"]


def test_departures_fail_with_strict(tool: click.Command, tmp_path: Path) -> None:
    """With --strict departures end with exit code 1, in JSON too."""
    path = tmp_path / "s.toml"
    assert checked(tool, path, WEAK, "--strict").stdout == checked(tool, path, WEAK).stdout
    assert checked(tool, path, WEAK, "--strict").exit_code == 1
    assert checked(tool, path, WEAK, "--strict", "--json").exit_code == 1


def test_departures_as_json(tool: click.Command, tmp_path: Path) -> None:
    """With --json each departure is an object on a line of its own."""
    path = tmp_path / "s.toml"
    result = checked(tool, path, WEAK, "--json")
    _, shop = [json.loads(line) for line in result.stdout.splitlines()]
    assert shop.pop("message").startswith("40m without activity")
    assert shop == {
        "kind": "departure",
        "application": "shop",
        "key": "idle_timeout",
        "origin": f"{path}:5",
        "source": "OWASP Session Management Cheat Sheet, Session Expiration",
    }


@pytest.mark.parametrize("options", [(), ("--strict",)], ids=["plain", "strict"])
def test_problems_fail(tool: click.Command, tmp_path: Path, options: tuple[str, ...]) -> None:
    """A file that cannot be used is exit code 78, with each problem on its own line, as `serve` writes it."""
    path = tmp_path / "s.toml"
    result = checked(tool, path, BROKEN, *options)
    assert result.exit_code == MISCONFIGURED
    *problems, summary = result.stdout.splitlines()
    with pytest.raises(BadConfig) as refusal:
        load_config(path)
    assert problems == str(refusal.value).splitlines()
    assert len(problems) == 2
    assert summary == f"{path}: cannot be used: 2 problems"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('listen = "0.0.0.0:7443"', "2: server.listen: 0.0.0.0:7443 can be reached from other machines"),
        ('http_listen = "0.0.0.0:80"', "2: server.http_listen: 0.0.0.0:80 can be reached from other machines"),
        ('workers = 2\ntls.certificate = "c"\ntls.key = "k"', "2: server.workers: is 2, and workers do not serve TLS"),
        ('listen = "unix:s"\nworkers = 2', "3: server.workers: is 2, and workers cannot share unix:s"),
    ],
)
def test_what_keeps_a_server_from_starting(tool: click.Command, tmp_path: Path, text: str, problem: str) -> None:
    """Settings that do not fit together are found before `serve` refuses them."""
    path = tmp_path / "s.toml"
    result = checked(tool, path, f"[server]\n{text}\n")
    assert result.exit_code == MISCONFIGURED
    assert result.stdout.startswith(f"{path}:{problem}")


def test_an_address_that_is_allowed(tool: click.Command, tmp_path: Path) -> None:
    """Nothing keeps a server from an address for others if TLS is set up or the file accepts the risk."""
    for more in ("allow_remote_plaintext = true", 'tls.certificate = "c"\ntls.key = "k"'):
        result = checked(tool, tmp_path / "s.toml", f'[server]\nlisten = "0.0.0.0:7443"\n{more}\n')
        assert result.exit_code == 0


def test_files_that_are_not_here(tool: click.Command, tmp_path: Path) -> None:
    """A file that is named and missing is shown: the server may be another machine, so only --strict fails."""
    path, there = tmp_path / "s.toml", tmp_path / "there.pem"
    there.touch()
    text = f"""[server.tls]
certificate = "{there}"
key = "{tmp_path}/gone.pem"
[networks]
operators = "{tmp_path}/gone.mmdb"
"""
    result = checked(tool, path, text)
    key, operators, summary = result.stdout.splitlines()
    remedy = "on this machine; the server needs it to start"
    assert key == f"{path}:3: server.tls.key: there is no file {tmp_path}/gone.pem {remedy}"
    assert operators == f"{path}:5: networks.operators: there is no file {tmp_path}/gone.mmdb {remedy}"
    assert summary.endswith("; 2 files not found here")
    assert result.exit_code == 0
    assert checked(tool, path, text, "--strict").exit_code == 1
    kinds = [json.loads(line)["kind"] for line in checked(tool, path, text, "--json").stdout.splitlines()]
    assert kinds == ["missing-file", "missing-file"]


def test_all_problems_at_once(tool: click.Command, tmp_path: Path) -> None:
    """Wrong values do not hide settings that contradict each other, nor the other way round."""
    path = tmp_path / "s.toml"
    text = """[server]
keyring_file = "k"
keyring_command = "/k"
[applications.shop]
idle_timeout = "soon"
renewal_timeout = "5m"
renewal_overlap = "6m"
[applications.desk]
cookie.secure = false
cookie.same_site = "None"
lost = 1
"""
    *problems, _ = checked(tool, path, text).stdout.splitlines()
    keys = [problem.removeprefix(f"{path}:").partition(": ")[2].partition(":")[0] for problem in problems]
    assert keys == [
        "applications.shop.idle_timeout",
        "applications.shop.renewal_overlap",
        "applications.desk.cookie.same_site",
        "applications.desk.lost",
        "server.keyring_command",
    ]


def test_a_wrong_value_is_no_contradiction(tool: click.Command, tmp_path: Path) -> None:
    """A wrong value counts as unknown: nothing else is reported to contradict it, or the default in its place."""
    path = tmp_path / "s.toml"
    text = """[server]
tls.certificate = 1
tls.key = "k"
[applications.shop]
renewal_timeout = "10m"
renewal_overlap = "long"
idle_timeout = "40m"
absolute_timeout = "later"
[applications.desk]
preset = "strict"
renewal_overlap = "30d"
"""
    *problems, summary = checked(tool, path, text).stdout.splitlines()
    assert [problem.removeprefix(f"{path}:").partition(":")[0] for problem in problems] == ["2", "6", "8", "10"]
    assert summary.endswith("cannot be used: 4 problems")


def test_problems_as_json(tool: click.Command, tmp_path: Path) -> None:
    """With --json each problem is an object on a line of its own."""
    path = tmp_path / "s.toml"
    result = checked(tool, path, BROKEN, "--json")
    assert result.exit_code == MISCONFIGURED
    found = [json.loads(line) for line in result.stdout.splitlines()]
    assert [item["kind"] for item in found] == ["problem", "problem"]
    assert found[0]["message"].startswith(f"{path}:2: applications.shop.idle_timout: no such key")


def test_a_file_cannot_command_a_terminal(tool: click.Command, tmp_path: Path) -> None:
    """Control characters of a file are shown as escapes."""
    result = checked(tool, tmp_path / "s.toml", '[applications."\\u001b[2J"]\nidle_timeout = "40m"\n')
    assert result.exit_code == MISCONFIGURED
    assert "\x1b" not in result.output


def test_the_file_is_the_one_that_serve_reads(
    tool: click.Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without FILE it is ./sessiond.toml; if it does not exist, that is a problem."""
    monkeypatch.chdir(tmp_path)
    missing = run(tool)
    assert (missing.exit_code, missing.stdout) == (
        MISCONFIGURED,
        "sessiond.toml: no such file; create it, or name another one\n",
    )
    Path("sessiond.toml").write_text(GOOD, encoding="utf-8")
    assert run(tool, "--strict").exit_code == 0


def test_the_example_follows_the_guidance(tool: click.Command) -> None:
    """The example configuration passes the strict check."""
    example = Path(__file__).parents[2] / "deploy" / "sessiond.toml"
    assert run(tool, "--strict", str(example)).exit_code == 0


def test_the_json_option_may_come_before_the_command(tmp_path: Path) -> None:
    """`sessionctl --json check-config` is the same as `sessionctl check-config --json`."""
    path = tmp_path / "s.toml"
    after = checked(sessionctl.main, path, WEAK, "--json")
    before = CliRunner().invoke(sessionctl.main, ["--json", "check-config", str(path)])
    assert before.stdout == after.stdout


def on_screen(tool: click.Command, path: Path, *options: str, width: int = 50) -> list[str]:
    """The lines of the check of a file on a terminal."""
    screen = Screen(width=width, colours=False, now=now)
    return CliRunner().invoke(tool, ["check-config", *options, str(path)], obj=screen).stdout.splitlines()


def test_a_terminal_wraps_findings(tool: click.Command, tmp_path: Path) -> None:
    """On a terminal a finding is wrapped to its width, with all its words."""
    path = tmp_path / "s.toml"
    piped = checked(tool, path, WEAK).stdout
    lines = on_screen(tool, path)
    assert all(len(line) <= 50 for line in lines)
    assert "".join("".join(lines).split()) == "".join(
        piped.replace("plaintext: ", "plaintext ").replace("timeout: ", "timeout ").split()
    )


@pytest.mark.parametrize("width", range(20, 60))
def test_no_value_is_broken(tool: click.Command, tmp_path: Path, width: int) -> None:
    """On a terminal of any width a value with a hyphen stays on one line."""
    path = tmp_path / "s.toml"
    path.write_text('[applications.shop]\npreset = "owasp-hi"\n', encoding="utf-8")
    text = "\n".join(on_screen(tool, path, width=width))
    assert [value for value in ('"owasp-low"', '"owasp-high"', '"nist-aal3"') if value not in text] == []


def test_a_wide_finding_is_one_line(tmp_path: Path) -> None:
    """With -o wide a finding is one line on a terminal too."""
    path = tmp_path / "s.toml"
    piped = checked(sessionctl.main, path, WEAK).stdout
    assert on_screen(sessionctl.main, path, "-o", "wide") == piped.splitlines()
