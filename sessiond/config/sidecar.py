"""The settings of a sidecar: options and environment variables, checked once. It reads no file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError

from sessiond.config.durations import DurationOrZero, parse_duration
from sessiond.config.loading import BadConfig
from sessiond.config.overrides import Override, overrides_of
from sessiond.config.problems import path_of, remedy_for
from sessiond.config.sections import (
    PathText,
    Section,
    parse_http_listen,
    parse_listen,
    parse_metrics_listen,
    parse_tracing,
)
from sessiond.domain.immutable import immutable
from sessiond.domain.values import Millis

__all__ = [
    "DEFAULT_UPSTREAM",
    "MOST_ENTRIES",
    "SidecarConfig",
    "load_sidecar",
    "parse_upstream",
    "sidecar_overrides_in",
]

DEFAULT_UPSTREAM = "127.0.0.1:7443"
_DEFAULT_LISTEN = "unix:sessiond-sidecar.sock"
_MAX_PORT = 65535
MOST_ENTRIES = 10_000_000
"""The most answers that may be kept."""


def parse_upstream(value: Any) -> str:
    """Return the address of an authority. Raises ValueError with the accepted form."""
    if isinstance(value, str):
        if value.startswith("unix:") and len(value) > len("unix:") and "\0" not in value:
            return value
        host, _, port = value.rpartition(":")
        is_host = host and (":" not in host or (host.startswith("[") and host.endswith("]"))) and "/" not in host
        if is_host and port.isascii() and port.isdecimal() and 0 < int(port) <= _MAX_PORT:
            return value
    raise ValueError('must be "HOST:PORT" with a port from 1 to 65535, or "unix:PATH"')


class _Sidecar(Section):
    upstream: Annotated[str, BeforeValidator(parse_upstream)] = DEFAULT_UPSTREAM
    upstream_ca: PathText | None = None
    upstream_certificate: PathText | None = None
    upstream_key: PathText | None = None
    key_file: PathText | None = None
    listen: Annotated[str, BeforeValidator(parse_listen)] = _DEFAULT_LISTEN
    http_listen: Annotated[str, BeforeValidator(parse_http_listen)] = ""
    metrics_listen: Annotated[str, BeforeValidator(parse_metrics_listen)] = ""
    tracing: Annotated[str, BeforeValidator(parse_tracing)] = ""
    socket_mode: Literal["0600", "0660"] = "0600"
    allow_remote_plaintext: bool = False
    cache_entries: Annotated[int, Field(ge=1, le=MOST_ENTRIES)] = 100_000
    cache_bytes: Annotated[int, Field(ge=1_000_000, le=100_000_000_000)] = 256_000_000
    max_calls: Annotated[int, Field(ge=10, le=100_000)] = 3_000
    max_streams: Annotated[int, Field(ge=1, le=100_000)] = 1_000
    drain_delay: DurationOrZero = Millis(0)
    drain_timeout: DurationOrZero = parse_duration("5s")
    log_format: Literal["auto", "json", "console"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"


@immutable
class SidecarConfig:
    """Every setting of a sidecar, checked.

    upstream                the address of the authority: `host:port`, or `unix:path`
    upstream_ca             a PEM file with the certificates that may sign the authority's; None: no TLS
    upstream_certificate    a PEM file with the certificate that the sidecar shows; None: it shows none
    upstream_key            a PEM file with its private key
    key_file                a file with the key by which the sidecar follows the authority; None: it has none
    listen                  `host:port`, or `unix:path`
    http_listen             where proxies ask over HTTP: `host:port`, or `unix:path`; empty: nowhere
    metrics_listen          where Prometheus asks for metrics: `host:port`, or `unix:path`; empty: nowhere
    tracing                 the collector to which spans of calls are sent: `http://host:port`, or `env`; empty: nowhere
    socket_mode             the mode of the Unix sockets
    allow_remote_plaintext  whether tokens may cross a network without encryption, on either side
    cache_entries           how many answers are kept
    cache_bytes             about how many bytes they may take
    max_calls               how many calls, streams included, are served at once; one connection may have half of them
    max_streams             how many streams are forwarded at once; one connection may have half of them
    drain_delay             how long calls are answered after the stop was announced to health checks
    drain_timeout           how long calls under way may then take to end
    log_format, log_level   how logs are written, and which
    origins                 where each value comes from: `default`, a variable (`SESSIOND_UPSTREAM`) or an option
    """

    upstream: str
    upstream_ca: Path | None
    upstream_certificate: Path | None
    upstream_key: Path | None
    key_file: Path | None
    listen: str
    http_listen: str
    metrics_listen: str
    tracing: str
    socket_mode: int
    allow_remote_plaintext: bool
    cache_entries: int
    cache_bytes: int
    max_calls: int
    max_streams: int
    drain_delay: Millis
    drain_timeout: Millis
    log_format: str
    log_level: str
    origins: Mapping[str, str]


def sidecar_overrides_in(environment: Mapping[str, str]) -> list[Override]:
    """Return the settings of a sidecar in an environment, not checked yet: SESSIOND_CACHE_BYTES for `cache_bytes`."""
    return overrides_of({name: field.annotation for name, field in _Sidecar.model_fields.items()}, environment)


def load_sidecar(overrides: Sequence[Override] = ()) -> SidecarConfig:
    """Return the configuration. Of two overrides for one setting the later one counts.

    Raises `BadConfig` with every problem that was found.
    """
    chosen = {override.key: override for override in overrides}
    try:
        section = _Sidecar.model_validate({key: override.value for key, override in chosen.items()})
    except ValidationError as error:
        problems = [f"{chosen[path_of(detail)[0]].origin}: {remedy_for(detail)}" for detail in error.errors()]
        raise BadConfig("\n".join(problems)) from None
    origins = {name: chosen[name].origin if name in chosen else "default" for name in _Sidecar.model_fields}
    if problem := _tls_problem(section, origins):
        raise BadConfig(problem)
    paths = {
        name: None if getattr(section, name) is None else Path(getattr(section, name))
        for name in ("upstream_ca", "upstream_certificate", "upstream_key", "key_file")
    }
    values = (
        dict(section)
        | paths
        | {
            "socket_mode": int(section.socket_mode, 8),
        }
    )
    return SidecarConfig(**values, origins=MappingProxyType(origins))


def _tls_problem(section: _Sidecar, origins: Mapping[str, str]) -> str:
    """Return what does not fit together in the settings of TLS; empty if everything does."""
    for name, other in (
        ("upstream_certificate", "upstream_key"),
        ("upstream_key", "upstream_certificate"),
        ("upstream_certificate", "upstream_ca"),
    ):
        if getattr(section, name) is not None and getattr(section, other) is None:
            return f"{origins[name]}: needs --{other.replace('_', '-')} too"
    if section.upstream_ca is not None and section.upstream.startswith("unix:"):
        return f"{origins['upstream_ca']}: {section.upstream} is a Unix socket, which needs no TLS; leave it out"
    return ""
