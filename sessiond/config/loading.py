"""Loading: from a file to a frozen configuration, or to a list of what is wrong and where."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import ValidationError

from sessiond.config.contradictions import Contradiction, contradictions
from sessiond.config.lines import KeyPath, line_index, nearest_line
from sessiond.config.sections import DEFAULT_LISTEN, File
from sessiond.domain.immutable import immutable
from sessiond.domain.policy import Policy
from sessiond.domain.values import Millis

__all__ = ["DEFAULT_LISTEN", "BadConfig", "Config", "effective", "load_config"]

_Lines = Mapping[KeyPath, int]


class BadConfig(Exception):
    """The configuration cannot be used. One problem a line: file, line, key, and what would be right."""


@immutable
class Config:
    """Everything that can be set, checked. Times in milliseconds.

    listen                    `host:port`, or `unix:path`
    allow_remote_plaintext    the operator takes the risk of tokens in the clear on the network
    data                      the folder of the database and the key file
    encrypt_data              whether session data is encrypted at rest
    event_retention           how long the log is kept
    cache_sessions            how many sessions are kept in memory
    subscriber_write_timeout  how long a subscriber may leave a message unread
    max_subscribers           how many subscribers there may be at once, half of them from one connection
    max_calls                 how many calls, streams included, are served at once, half of them from one connection
    max_answer_bytes          how much the answers that are kept for repeats may take; then the oldest go
    operators, countries      MaxMind files that tell the operator and the country of an address
    policies                  the policy of each application
    origins                   for each application, where each of its `effective` values comes from: `preset NAME`, or
                              `FILE:LINE`
    server_origins            the same for the keys of the other sections (`server.listen`): `default`, or `FILE:LINE`
    files                     the files that it was read from; none if everything has its default
    """

    listen: str
    allow_remote_plaintext: bool
    data: Path
    encrypt_data: bool
    event_retention: Millis
    cache_sessions: int
    subscriber_write_timeout: Millis
    max_subscribers: int
    max_calls: int
    max_answer_bytes: int
    log_format: str
    log_level: str
    operators: Path | None
    countries: Path | None
    policies: Mapping[str, Policy]
    origins: Mapping[str, Mapping[str, str]]
    server_origins: Mapping[str, str]
    files: tuple[Path, ...]

    def restart_required(self, other: Config) -> list[str]:
        """The keys of the file (`server.listen`) whose values differ and which a server reads only at its start.

        That is every key outside of the applications' sections: their policies are the only thing that is reloaded.
        """
        return [key for key in self.server_origins if getattr(self, _field_of(key)) != getattr(other, _field_of(key))]


def load_config(path: Path | None) -> Config:
    """The configuration in a file; without one, one application `default` with preset `owasp-low`.

    Raises `BadConfig`.
    """
    name, text = str(path), "" if path is None else _read(path)
    document = _parse(name, text)
    lines = line_index(text)
    try:
        file = File.model_validate(document)
    except ValidationError as error:
        raise BadConfig("\n".join(_problem(name, lines, detail) for detail in error.errors())) from error
    policies = {application: section.policy() for application, section in file.applications.items()}
    problems = [
        _contradiction(name, lines, application, found)
        for application, policy in policies.items()
        for found in contradictions(application, policy)
    ]
    if problems:
        raise BadConfig("\n".join(problems))
    networks = file.networks
    return Config(
        listen=file.server.listen,
        allow_remote_plaintext=file.server.allow_remote_plaintext,
        data=Path(file.server.data),
        encrypt_data=file.server.encrypt_data,
        event_retention=file.server.event_retention,
        cache_sessions=file.server.cache_sessions,
        subscriber_write_timeout=file.server.subscriber_write_timeout,
        max_subscribers=file.server.max_subscribers,
        max_calls=file.server.max_calls,
        max_answer_bytes=file.server.max_answer_bytes,
        log_format=file.log.format,
        log_level=file.log.level,
        operators=None if networks.operators is None else Path(networks.operators),
        countries=None if networks.countries is None else Path(networks.countries),
        policies=policies,
        origins={application: _origins(name, lines, application, policy) for application, policy in policies.items()},
        server_origins=_server_origins(name, lines, file),
        files=() if path is None else (path,),
    )


def _field_of(key: str) -> str:
    """The field of `Config` that has the value of a key outside of the applications' sections."""
    section, _, name = key.partition(".")
    return f"log_{name}" if section == "log" else name


def effective(policy: Policy) -> Mapping[str, Any]:
    """Every value of a policy by its path in the file: `idle_timeout`, `reactions.ip_change`, `cookie.name`."""
    values: dict[str, Any] = {}
    for field in fields(policy):
        value = getattr(policy, field.name)
        if isinstance(value, Mapping):
            values |= {f"{field.name}.{key}": inner for key, inner in value.items()}
        elif is_dataclass(value):
            values |= {f"{field.name}.{inner.name}": getattr(value, inner.name) for inner in fields(value)}
        else:
            values[field.name] = value
    return MappingProxyType(values)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise BadConfig(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BadConfig(f"{path}: is not UTF-8 text") from error


def _parse(name: str, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        # Without a line the parser means the end of the document.
        raise BadConfig(f"{name}:{line[1] if line else len(text.splitlines())}: is not TOML: {error}") from error


def _origins(name: str, lines: _Lines, application: str, policy: Policy) -> Mapping[str, str]:
    def origin(key: str) -> str:
        line = lines.get(("applications", application, *key.split(".")))
        return f"preset {policy.preset}" if line is None else f"{name}:{line}"

    return MappingProxyType({key: origin(key) for key in effective(policy)})


def _server_origins(name: str, lines: _Lines, file: File) -> Mapping[str, str]:
    keys = [
        (section, key) for section in ("server", "log", "networks") for key in type(getattr(file, section)).model_fields
    ]
    return MappingProxyType(
        {".".join(key): f"{name}:{lines[key]}" if key in lines else "default" for key in keys},
    )


def _problem(name: str, lines: _Lines, detail: Any) -> str:
    path = tuple(str(part) for part in detail["loc"])
    if path[-1] == "[key]":  # what pydantic puts where the key itself is wrong
        path = path[:-1]
    match detail["type"]:
        case "extra_forbidden":
            remedy = "no such key; see docs/reference/configuration.md"
        case "model_type" | "dict_type":
            remedy = "must be a table"
        case _:
            remedy = detail["msg"].removeprefix("Value error, ")
    return f"{name}:{nearest_line(lines, path)}: {'.'.join(path)}: {remedy}"


def _contradiction(name: str, lines: _Lines, application: str, found: Contradiction) -> str:
    """The line is that of the key, or of the other one where only that is in the file: there is what to change."""
    here = ("applications", application)
    path, other = (*here, *found.key.split(".")), (*here, *found.other.split("."))
    line = lines[other] if path not in lines and other in lines else nearest_line(lines, path)
    return f"{name}:{line}: {'.'.join(path)}: {found.remedy}"
