"""The files that an operator copies: the systemd unit sandboxes the server and does not restart it in vain."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

import sessionctl
import sessiond.cli
from sessiond.config import load_config
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.support.server import ServerProcess, stub_for

DEPLOY = Path(__file__).parents[2] / "deploy"
UNIT = DEPLOY / "sessiond.service"
REFUSE_EXECUTABLE_MEMORY = """
import ctypes, os, sys
if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0):  # PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN
    sys.exit("this kernel has no PR_SET_MDWE")
os.execv(sys.argv[1], sys.argv[1:])
"""


def settings(name: str) -> list[str]:
    """Return every value of a setting of the unit."""
    return re.findall(rf"^{name}=(.*)$", UNIT.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed here (Debian package systemd)"
)
def test_the_unit_is_confined() -> None:
    """The exposure of the service is below 2.0 of 10 in the rating of systemd, which knows every setting."""
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(UNIT)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if "Unknown option" in run.stderr or "unrecognized option" in run.stderr:
        pytest.skip("this systemd-analyze cannot rate a unit file that is not loaded (before systemd 250)")
    rating = re.search(r"Overall exposure level for sessiond.service: ([0-9.]+)", run.stdout)
    assert rating is not None, run.stdout + run.stderr
    assert float(rating[1]) < 2
    assert "Unknown" not in run.stderr


def test_a_start_that_cannot_succeed_is_not_repeated() -> None:
    """The unit does not restart after wrong usage or a bad configuration, and limits the number of restarts."""
    (prevented,) = settings("RestartPreventExitStatus")
    codes = {str(click.UsageError.exit_code), str(sessiond.cli.MISCONFIGURED)}
    assert set(prevented.split()) == codes
    assert settings("Restart") == ["on-failure"]
    assert settings("StartLimitBurst") == ["5"]
    assert settings("StartLimitIntervalSec") == ["5min"]


@pytest.mark.parametrize("name", ["ExecStart", "ExecReload"])
def test_the_commands_of_the_unit_exist(name: str) -> None:
    """The programs accept the commands and options that the unit uses."""
    (line,) = settings(name)
    program, command, *arguments = shlex.split(line)
    group: click.Group = {"sessiond": sessiond.cli.main, "sessionctl": sessionctl.main}[Path(program).name]
    found = group.get_command(click.Context(group), command)
    assert found is not None
    context = found.make_context(command, arguments)
    assert str(context.params["data" if name == "ExecStart" else "folder"]) == "/var/lib/sessiond"


def test_the_example_agrees_with_the_unit() -> None:
    """The example configuration loads, and its data folder is the one that the unit creates."""
    config = load_config(DEPLOY / "sessiond.toml")
    assert str(config.data) == f"/var/lib/{settings('StateDirectory')[0]}"
    assert config.listen.startswith("127.0.0.1:")


async def test_the_server_needs_no_writable_executable_memory(tmp_path: Path) -> None:
    """The server starts, serves and stops under `MemoryDenyWriteExecute`."""
    server = ServerProcess(tmp_path, prefix=(sys.executable, "-c", REFUSE_EXECUTABLE_MEMORY))
    try:
        try:
            address = await server.address()
        except AssertionError as error:
            if "no PR_SET_MDWE" in str(error):
                pytest.skip("the kernel cannot refuse executable memory (before Linux 6.3)")
            raise
        async with stub_for(address) as stub:
            created = await stub.CreateSession(pb.CreateSessionRequest(subject="ada"))
            valid = await stub.ValidateSession(pb.ValidateSessionRequest(token=created.token))
        assert valid.verdict == pb.VERDICT_VALID
        assert await server.terminate() == 0
    finally:
        server.kill()
