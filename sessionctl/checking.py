"""`check-config`: errors in a configuration, and settings that are weaker than the guidance. Needs no server."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import click

from sessionctl.exits import Exit
from sessionctl.failures import Command
from sessionctl.output import as_json, printable, show
from sessionctl.screen import screen
from sessionctl.settings import output_options, settings

if TYPE_CHECKING:
    from sessiond.config import Config, Departure

__all__ = ["check", "check_config", "missing_files", "obstacles"]

_NARROWEST = 20


def check(file: Path, *, strict: bool, json: bool, wide: bool = False) -> Exit:
    """Write every error, or else every setting that is weaker than the guidance; returns the exit code.

    `DONE`: the file can be used; `FAILED`: a setting is weaker than the guidance, or a file that it names is not here,
    and `strict` is set; `MISCONFIGURED`: the file cannot be used. Findings are wrapped on a terminal. If `wide` is set,
    and if standard output is not a terminal, each finding is one line.
    """
    from sessiond.config import BadConfig, departures, load_config  # here, so that help is fast

    width = screen().width if screen().terminal and not wide else None
    try:
        config = load_config(file)
    except BadConfig as error:
        _show_problems(file, str(error).splitlines(), json=json, width=width)
        return Exit.MISCONFIGURED
    if found_obstacles := obstacles(config):
        _show_problems(file, found_obstacles, json=json, width=width)
        return Exit.MISCONFIGURED
    found, missing = departures(config), missing_files(config)
    _show_departures(file, found, missing, json=json, width=width)
    return Exit.FAILED if strict and (found or missing) else Exit.DONE


def obstacles(config: Config) -> list[str]:
    """Why a server with this configuration would not start, as far as the file alone says."""
    from sessiond.config import remote_plaintext, workers_need_port

    return [obstacle.text(config) for obstacle in (*remote_plaintext(config), *workers_need_port(config))]


def missing_files(config: Config) -> list[str]:
    """The files that the configuration names and that are not here. The server may run on another machine."""
    from sessiond.config import named_files

    return [
        f"{config.server_origins[key]}: {key}: there is no file {path} on this machine; the server needs it to start"
        for key, path in named_files(config).items()
        if _is_missing(path)
    ]


def _is_missing(path: Path) -> bool:
    """Whether there is no such file. One in a folder that this user may not look into is not missing."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


@click.command("check-config", cls=Command)
@click.argument("file", type=click.Path(path_type=Path), default=Path("sessiond.toml"))
@click.option("--strict", is_flag=True, help="Exit with code 1 if a setting is weak or a file is missing.")
@output_options
@click.pass_context
def check_config(context: click.Context, file: Path, strict: bool) -> None:
    """Check a configuration file, ./sessiond.toml by default.

    It shows the errors in FILE, which then cannot be used (exit code 78). If there are none, it shows the settings that
    are weaker than OWASP, ASVS 5.0 or NIST recommend, each with its line and its source. Such a setting may be a good
    decision. It also shows which files that FILE names are not on this machine. It does not check what those files, the
    environment and the data folder contain.

    With -o wide, or if the output is not a terminal, each finding is one line. The command contacts no server.
    """
    asked = settings()
    context.exit(check(file, strict=strict, json=asked.json, wide=asked.wide))


def _show_problems(file: Path, problems: list[str], *, json: bool, width: int | None) -> None:
    for problem in problems:
        if json:
            as_json({"kind": "problem", "message": problem})
        else:
            for line in _wrapped(printable(problem), width):
                show((line, "red"))
    if not json and len(problems) > 1:
        _show_summary(file, f"cannot be used: {len(problems)} problems", width)


def _show_departures(file: Path, found: list[Departure], missing: list[str], *, json: bool, width: int | None) -> None:
    for text in missing:
        if json:
            as_json({"kind": "missing-file", "message": text})
        else:
            for line in _wrapped(printable(text), width):
                show((line, "yellow"))
    for departure in found:
        if json:
            as_json(departure, kind="departure")
        else:
            _show_departure(departure, width)
    if not json:
        weaker = f"{_count(len(found), 'setting')} weaker than" if found else "nothing weaker than"
        absent = f"; {_count(len(missing), 'file')} not found here" if missing else ""
        _show_summary(file, f"OK; {weaker} OWASP, ASVS or NIST recommend{absent}", width)


def _show_departure(departure: Departure, width: int | None) -> None:
    key = f"applications.{departure.application}.{departure.key}" if departure.application else departure.key
    place, key = printable(departure.origin), printable(key)
    message, source = printable(departure.message), f"[{departure.source}]"
    if width is None:
        show((f"{place}: ", "dim"), (key, "yellow"), f": {message} ", (source, "dim"))
        return
    for style, text, indent in (("yellow", f"{place}: {key}", ""), ("", message, "  "), ("dim", source, "  ")):
        for line in _wrapped(text, width, indent):
            show((line, style))


def _show_summary(file: Path, text: str, width: int | None) -> None:
    for line in _wrapped(f"{printable(str(file))}: {text}", width):
        show((line, "bold"))


def _wrapped(text: str, width: int | None, indent: str = "") -> list[str]:
    """The lines of a text, none wider than the screen; later lines are indented. No `width`: one line."""
    if width is None:
        return [text]
    return textwrap.wrap(
        text,
        max(width, _NARROWEST),
        initial_indent=indent,
        subsequent_indent=indent or "  ",
        break_on_hyphens=False,  # keys and values have hyphens, such as "owasp-high"
    )


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
