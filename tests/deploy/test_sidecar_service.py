"""The systemd unit of the sidecar: it is confined as the server's is, and its command exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click

import sessiond.cli

DEPLOY = Path(__file__).parents[2] / "deploy"
SERVER, SIDECAR = DEPLOY / "sessiond.service", DEPLOY / "sessiond-sidecar.service"


def settings(unit: Path, name: str) -> list[str]:
    """Return every value of a setting of a unit."""
    return re.findall(rf"^{name}=(.*)$", unit.read_text(encoding="utf-8"), re.MULTILINE)


def confinement(unit: Path) -> set[str]:
    """Return the settings from the file system to the network."""
    text = unit.read_text(encoding="utf-8")
    return {line for line in text[text.index("ProtectSystem=") :].splitlines() if line and not line.startswith("#")}


def test_the_sidecar_is_confined_as_the_server() -> None:
    """The unit of the sidecar has every restriction of the server's unit, which a test rates."""
    assert confinement(SIDECAR) == confinement(SERVER)


def test_the_command_of_the_unit_exists() -> None:
    """The program accepts the command and the options that the unit uses, and its socket is in the unit's folder."""
    (line,) = settings(SIDECAR, "ExecStart")
    _, command, *arguments = shlex.split(line)
    found = sessiond.cli.main.get_command(click.Context(sessiond.cli.main), command)
    assert found is not None
    parameters = found.make_context(command, arguments).params
    (folder,) = settings(SIDECAR, "RuntimeDirectory")
    assert str(parameters["listen"]).startswith(f"unix:/run/{folder}/")
    assert settings(SIDECAR, "RestartPreventExitStatus") == settings(SERVER, "RestartPreventExitStatus")
