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
        assert (result.exit_code, result.stdout) == (0, f"{path}: can be used; follows the guidance\n")
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
    assert summary == f"{path}: can be used; 2 settings weaker than the guidance"
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
