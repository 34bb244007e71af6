"""Contexts: named servers, kept in a file of the user. It has paths of files, and never a secret."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import click

from sessionctl.exits import Exit

__all__ = ["BadContexts", "Context", "Contexts", "contexts_file", "load_contexts", "save_contexts"]

_CURRENT, _CONTEXTS = "current", "contexts"
_LONGEST_NAME = 64
_NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789._-")


class BadContexts(click.ClickException):
    """The file of contexts cannot be used. The text has the file, the key and the remedy."""

    exit_code = Exit.MISCONFIGURED


@dataclass(frozen=True, slots=True)
class Context:
    """One server, and how to reach it. Empty texts: not set. Paths are absolute."""

    target: str
    application: str = ""
    key_file: str = ""
    """The file with the key of the caller."""
    tls: bool = False
    """Whether to use TLS; without `tls_ca` with the public authorities that gRPC trusts."""
    tls_ca: str = ""
    tls_certificate: str = ""
    tls_key: str = ""


@dataclass(frozen=True, slots=True)
class Contexts:
    """All contexts by name, and the name of the one in use; empty: none."""

    current: str = ""
    contexts: Mapping[str, Context] = field(default_factory=dict)


def contexts_file() -> Path:
    """The file of contexts, in the folder for configuration of the XDG Base Directory Specification."""
    folder = os.environ.get("XDG_CONFIG_HOME", "")
    # The specification: a relative path must be ignored.
    base = Path(folder) if folder.startswith("/") else Path.home() / ".config"
    return base / "sessiond" / "contexts.json"


def is_name(name: str) -> bool:
    """Whether a text can be the name of a context."""
    return 0 < len(name) <= _LONGEST_NAME and set(name) <= _NAME_CHARACTERS and name[0].isalnum()


def load_contexts() -> Contexts:
    """The contexts in the file; none if there is no file. Raises `BadContexts`."""
    import json

    path = contexts_file()
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            text = file.read()
    except FileNotFoundError:
        return Contexts()
    except OSError as error:
        raise BadContexts(f"{path}: cannot be read: {error.strerror}; make it readable for this user") from None
    if mode & 0o022:
        raise BadContexts(
            f"{path}: other users can write it (mode {mode:04o}) and send you to a server of theirs; look at it, then "
            f"run: chmod 600 {path}"
        )
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise BadContexts(f"{path}:{error.lineno}: invalid JSON: {error.msg}; correct it, or remove the file") from None
    except UnicodeDecodeError:
        raise BadContexts(f"{path}: is not UTF-8 text; remove the file") from None
    except (ValueError, RecursionError):
        raise BadContexts(f"{path}: has a number or a nesting that no context has; remove the file") from None
    return _parsed(path, document)


def save_contexts(contexts: Contexts) -> None:
    """Replace the file atomically; only its owner may read it. Raises `BadContexts`."""
    import json

    path = contexts_file()
    document = {
        _CURRENT: contexts.current,
        _CONTEXTS: {
            name: {key: value for key, value in asdict(one).items() if value}
            for name, one in sorted(contexts.contexts.items())
        },
    }
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft.unlink(missing_ok=True)
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(json.dumps(document, indent=2) + "\n")
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise BadContexts(f"{path}: cannot be written: {error.strerror}; check its folder") from None


def _parsed(path: Path, document: Any) -> Contexts:
    def bad(key: str, problem: str) -> BadContexts:
        return BadContexts(f"{path}: {key}: {problem}; correct it, or remove the file")

    if not isinstance(document, dict):
        raise bad("the file", "must be a JSON object")
    for key in document:
        if key not in (_CURRENT, _CONTEXTS):
            raise bad(key, "no such key")
    current, listed = document.get(_CURRENT, ""), document.get(_CONTEXTS, {})
    if not isinstance(listed, dict):
        raise bad(_CONTEXTS, "must be an object")
    kinds = {one.name: bool if one.name == "tls" else str for one in fields(Context)}
    found: dict[str, Context] = {}
    for name, values in listed.items():
        here = f"{_CONTEXTS}.{name}"
        if not is_name(name):
            raise bad(here, "must have 1 to 64 of a-z, 0-9, '.', '_' and '-', and begin with a letter or digit")
        if not isinstance(values, dict) or "target" not in values:
            raise bad(here, "must be an object with the key target")
        for key, value in values.items():
            if key not in kinds:
                raise bad(f"{here}.{key}", "no such key")
            if not isinstance(value, kinds[key]):
                raise bad(f"{here}.{key}", "must be true or false" if key == "tls" else "must be a string")
        if not values["target"]:
            raise bad(f"{here}.target", "must not be empty")
        found[name] = Context(**values)
    if not isinstance(current, str) or (current and current not in found):
        raise bad(_CURRENT, "must be the name of a context, or empty")
    return Contexts(current, found)
