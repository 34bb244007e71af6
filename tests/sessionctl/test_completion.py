"""Completion in the shells themselves: what a Tab makes of a command line."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

import sessionctl
from sessionctl.completing import SHELLS, completion_script
from sessionctl.contexts import Context, Contexts, save_contexts
from sessiond import cli

PROGRAMS: dict[str, click.Group] = {"sessionctl": sessionctl.main, "sessiond": cli.main}
WRAPPER = """#!/bin/sh
# While the shell completes, and for the script, this is {name}. Otherwise it shows which command line was run.
if [ -n "$_{upper}_COMPLETE" ] || [ "$1" = completion ]; then exec {python} -P -m {name} "$@"; fi
echo "ran: $*"
"""
LINES = {
    "command": ("sessionctl stat\t", "status"),
    "option": ("sessionctl list --netw\t", "list --network"),
    "option of all": ("sessionctl --appl\t", "--application"),
    "choice": ("sessionctl list --output wi\t", "list --output wide"),
    "word": ("sessionctl list --state rev\t", "list --state revoked"),
    "event type": ("sessionctl watch --type session_cr\t", "watch --type session_created"),
    "subcommand": ("sessionctl keyring prom\t", "keyring promote"),
    "context": ("sessionctl --context pr\t", "--context prod"),
    "context in use": ("sessionctl context use st\t", "context use staging"),
    "application": ("sessionctl list --application sh\t", "list --application shop"),
    "file": ("sessionctl list --key-file no\t", "list --key-file notes.key"),
    "server's command": ("sessiond check\t", "check-config"),
    "server's option": ("sessiond serve --tra\t", "serve --transport"),
    "server's choice": ("sessiond serve --transport na\t", "serve --transport native"),
    "server's file": ("sessiond serve --tls-key no\t", "serve --tls-key notes.key"),
    "server's folder": ("sessiond serve --data fol\t", "serve --data folder"),
}
START = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "zsh": ["zsh", "-f", "-i"],
}
SET_UP = {
    "bash": ["PS1=", "bind 'set enable-bracketed-paste off'"],
    "zsh": ["PS1=", "unset zle_bracketed_paste", "autoload -Uz compinit", "compinit -u -D"],
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to type commands in, with two contexts, a file, and the programs on the path."""
    save_contexts(
        Contexts("", {"prod": Context("127.0.0.1:1", application="shop"), "staging": Context("unix:/nowhere.sock")})
    )
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in PROGRAMS:
        text = WRAPPER.format(name=name, upper=name.upper(), python=sys.executable)
        (programs / name).write_text(text, encoding="utf-8")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TERM", "dumb")
    (tmp_path / "work" / "folder").mkdir(parents=True)
    (tmp_path / "work" / "notes.key").touch()
    return tmp_path / "work"


def shell_or_skip(shell: str) -> None:
    """Skip the test if the shell is not installed."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed here (Debian's package {shell})")


class Terminal:
    """An interactive shell on a terminal of its own."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self._ours, theirs = pty.openpty()
        self._shell = subprocess.Popen(
            command, cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
        )
        os.close(theirs)

    def type(self, text: str, done: Callable[[str], bool]) -> str:
        """Type a text; return what is shown from then until `done` accepts it."""
        os.write(self._ours, text.encode())
        shown, limit = "", time.monotonic() + 60
        while not done(shown):
            ready, _, _ = select.select([self._ours], [], [], max(0.0, limit - time.monotonic()))
            assert ready, shown
            shown += os.read(self._ours, 65536).decode(errors="replace").replace("\r", "")
        return shown

    def close(self) -> None:
        """End the shell."""
        self._shell.kill()
        self._shell.wait()
        os.close(self._ours)


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_tab_completes(shell: str, place: Path) -> None:
    """In bash and zsh a Tab completes commands, options, words, contexts, applications, files and folders."""
    shell_or_skip(shell)
    terminal = Terminal(START[shell], place)
    try:
        scripts = [f'eval "$({name} completion {shell})"' for name in PROGRAMS]
        first = "\n".join([*SET_UP[shell], *scripts, "echo ready$((1+1))\n"])
        terminal.type(first, lambda shown: "\nready2\n" in shown)
        for line, run in LINES.values():
            shown = terminal.type(f"{line}\r", lambda shown: "\n" in shown.partition("ran: ")[2])
            # zsh takes the slash of a folder away again when the line is run.
            assert shown.partition("ran: ")[2].partition("\n")[0].rstrip("/ ") == run, shown
    finally:
        terminal.close()


def test_fish_completes(place: Path) -> None:
    """In fish too the one completion of each line is the expected one."""
    shell_or_skip("fish")
    scripts = [f"{name} completion fish | source" for name in PROGRAMS]
    asked = [f"complete -C '{line.removesuffix(chr(9))}'; echo =" for line, _ in LINES.values()]
    run = subprocess.run(
        ["fish", "--no-config", "-c", "\n".join([*scripts, *asked])],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    shown = [part.strip().partition("\t")[0] for part in run.stdout.removesuffix("=\n").split("=\n")]
    assert [word.removesuffix("/") for word in shown] == [words.split()[-1] for _, words in LINES.values()]
    assert run.stderr == ""


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("shell", SHELLS)
def test_the_command_writes_the_script(name: str, shell: str) -> None:
    """`completion` writes the script of the shell, which asks the program of that name, and nothing else."""
    result = CliRunner().invoke(PROGRAMS[name], ["completion", shell])
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == completion_script(PROGRAMS[name], shell)
    assert f"_{name.upper()}_COMPLETE={shell}_complete" in result.stdout
    assert not {other for other in PROGRAMS if other != name and other in result.stdout}


@pytest.mark.parametrize("name", PROGRAMS)
def test_another_shell_is_wrong_usage(name: str) -> None:
    """A shell without completion is wrong usage, in one line that lists the shells."""
    result = CliRunner().invoke(PROGRAMS[name], ["completion", "csh"])
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    for shell in SHELLS:
        assert shell in result.stderr


UNUSABLE = {
    "a token": f"sessionctl show {'T' * 70} --",
    "an unknown command": "sessionctl shw --",
    "an unknown option": "sessionctl list --nix --",
    "a bad value": "sessionctl list --limit nix --",
    "a password": "sessionctl store copy postgres://ada:secret@localhost/sessiond --",
    "the server's token": f"sessiond serve {'T' * 70} --",
    "the server's unknown command": "sessiond srve --",
    "the server's bad value": "sessiond serve --listen nix --",
}


@pytest.mark.parametrize("line", UNUSABLE.values(), ids=UNUSABLE)
def test_a_line_that_cannot_be_run_completes_without_an_error(line: str) -> None:
    """While you type, a line may be wrong; a Tab then writes no error into it, and repeats no secret."""
    result = completed(line)
    assert (result.returncode, result.stderr) == (0, "")
    assert "--help" in result.stdout
    assert "TTTT" not in result.stdout
    assert "secret" not in result.stdout


def test_a_broken_file_of_contexts_completes_nothing(tmp_path: Path) -> None:
    """If the file of contexts cannot be used, no name is completed, and no error is written into the line."""
    file = tmp_path / "xdg" / "sessiond" / "contexts.json"
    file.parent.mkdir(parents=True)
    file.write_text("{", encoding="utf-8")
    result = completed("sessionctl --context ")
    assert (result.returncode, result.stdout, result.stderr) == (0, "\n", "")


def completed(line: str) -> subprocess.CompletedProcess[str]:
    """Ask a program what completes the last word of a line."""
    words = line.split(" ")
    variables = {
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
        f"_{words[0].upper()}_COMPLETE": "bash_complete",
    }
    return subprocess.run(
        [sys.executable, "-m", words[0]],
        env=os.environ | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
