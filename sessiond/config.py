"""The configuration: `sessiond.toml`, parsed and checked once, frozen from then on."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from sessiond.domain.policy import PRESETS, Policy
from sessiond.domain.values import Millis

__all__ = ["DEFAULT_LISTEN", "BadConfig", "Config", "load_config", "parse_duration"]

DEFAULT_LISTEN = "127.0.0.1:7443"
_UNITS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DURATION = re.compile(r"(?:\d+(?:ms|s|m|h|d))+")
_PART = re.compile(r"(\d+)(ms|s|m|h|d)")
_LONGEST = 3650 * _UNITS["d"]
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


class BadConfig(Exception):
    """The configuration cannot be used. One problem a line: file, line, key, and what would be right."""


def parse_duration(text: Any) -> Millis:
    """A duration such as `30m`, `1h30m` or `250ms`, in milliseconds. Raises ValueError with what would be right."""
    if not isinstance(text, str) or not _DURATION.fullmatch(text):
        raise ValueError('must be a duration such as "30s", "15m", "1h30m" or "30d"')
    millis = sum(int(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    if not 0 < millis <= _LONGEST:
        raise ValueError('must be more than nothing and at most "3650d"')
    return Millis(millis)


def _parse_timeout(text: Any) -> Millis | None:
    return None if text == "none" else parse_duration(text)


Duration = Annotated[Millis, BeforeValidator(parse_duration)]
Timeout = Annotated[Millis | None, BeforeValidator(_parse_timeout)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Application(_Section):
    preset: Literal["owasp-low", "owasp-high", "nist-aal1", "nist-aal2", "nist-aal3"] = "owasp-low"
    idle_timeout: Timeout = None
    absolute_timeout: Timeout = None
    renewal_timeout: Timeout = None
    renewal_overlap: Duration = Millis(0)
    roll_tolerance: Duration = Millis(0)
    refresh_extends_lifetime: bool = False
    retention: Duration = Millis(0)
    max_data_bytes: Annotated[int, Field(ge=0, le=1024 * 1024)] = 0

    def policy(self) -> Policy:
        """The preset with what the file sets over it."""
        chosen = {name: getattr(self, name) for name in self.model_fields_set if name != "preset"}
        return replace(PRESETS[self.preset], **chosen)


class _Server(_Section):
    listen: str = DEFAULT_LISTEN
    allow_remote_plaintext: bool = False
    data: str = "data"
    event_retention: Duration = parse_duration("30d")
    cache_sessions: Annotated[int, Field(ge=1, le=100_000_000)] = 100_000
    subscriber_write_timeout: Duration = parse_duration("30s")


class _Log(_Section):
    format: Literal["auto", "json", "console"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"


class _File(_Section):
    server: _Server = _Server()
    log: _Log = _Log()
    applications: dict[str, _Application] = Field(default_factory=lambda: {"default": _Application()}, min_length=1)


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that can be set, checked. Times in milliseconds.

    listen                    `host:port`, or `unix:path`
    allow_remote_plaintext    the operator takes the risk of tokens in the clear on the network
    data                      the folder of the database and the key file
    event_retention           how long the log is kept
    cache_sessions            how many sessions are kept in memory
    subscriber_write_timeout  how long a subscriber may leave a message unread
    policies                  the policy of each application
    """

    listen: str
    allow_remote_plaintext: bool
    data: Path
    event_retention: Millis
    cache_sessions: int
    subscriber_write_timeout: Millis
    log_format: str
    log_level: str
    policies: Mapping[str, Policy]


def load_config(path: Path | None) -> Config:
    """The configuration in a file; without one, one application `default` with preset `owasp-low`.

    Raises `BadConfig`.
    """
    text = ""
    if path is not None:
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise BadConfig(f"{path}: cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise BadConfig(f"{path}: is not UTF-8 text") from error
    name = str(path)
    try:
        file = _File.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        # Without a line the parser means the end of the document.
        raise BadConfig(f"{name}:{line[1] if line else len(text.splitlines())}: is not TOML: {error}") from error
    except ValidationError as error:
        raise BadConfig("\n".join(_problem(name, text, detail) for detail in error.errors())) from error
    policies = {application: section.policy() for application, section in file.applications.items()}
    problems = [
        f"{name}:{_line_of(text, ('applications', application, key))}: applications.{application}.{key}: {remedy}"
        for application, policy in policies.items()
        for key, remedy in _contradictions(application, policy)
    ]
    if problems:
        raise BadConfig("\n".join(problems))
    return Config(
        listen=file.server.listen,
        allow_remote_plaintext=file.server.allow_remote_plaintext,
        data=Path(file.server.data),
        event_retention=file.server.event_retention,
        cache_sessions=file.server.cache_sessions,
        subscriber_write_timeout=file.server.subscriber_write_timeout,
        log_format=file.log.format,
        log_level=file.log.level,
        policies=policies,
    )


def _contradictions(application: str, policy: Policy) -> list[tuple[str, str]]:
    found = []
    if not _NAME.fullmatch(application):
        found.append(("preset", "an application's name has 1 to 64 of a-z, 0-9, '.', '_' and '-'"))
    if policy.idle_timeout is None and policy.absolute_timeout is None:
        found.append(("absolute_timeout", "without an idle timeout there must be an absolute one"))
    if policy.absolute_timeout is not None:
        for key in ("idle_timeout", "renewal_timeout"):
            value = getattr(policy, key)
            if value is not None and value > policy.absolute_timeout:
                found.append((key, "must not be longer than absolute_timeout"))
    if policy.renewal_timeout is not None and policy.renewal_overlap > policy.renewal_timeout:
        found.append(("renewal_overlap", "must not be longer than renewal_timeout"))
    return found


def _problem(name: str, text: str, detail: Any) -> str:
    path = tuple(str(part) for part in detail["loc"])
    remedy = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "extra_forbidden":
        remedy = "no such key; see docs/configuration.md"
    return f"{name}:{_line_of(text, path)}: {'.'.join(path)}: {remedy}"


def _line_of(text: str, path: tuple[str, ...]) -> int:
    """The line on which a key stands, else its table's, else the first: TOML parsers do not tell."""
    table: tuple[str, ...] = ()
    best, best_line = 0, 1
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[([^\[\]]+)\]", line):
            here = table = tuple(part.strip().strip("\"'") for part in header[1].split("."))
        elif key := re.match(r"\s*([^=#\[\]]+?)\s*=", line):
            here = table + tuple(part.strip().strip("\"'") for part in key[1].split("."))
        else:
            continue
        if path[: len(here)] == here and len(here) > best:
            best, best_line = len(here), number
    return best_line
