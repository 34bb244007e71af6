"""The sections of `sessiond.toml`: their keys, and the values that each key accepts."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from importlib import import_module
from importlib.util import find_spec
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from sessiond.config.durations import Duration, DurationOrZero, Timeout, parse_duration
from sessiond.config.near import must_be_one_of
from sessiond.config.proxy import ProxySettings
from sessiond.config.store_address import PostgresAddress, parse_store
from sessiond.domain.call_limits import CallLimit, CallLimits
from sessiond.domain.errors import shown
from sessiond.domain.policy import PRESETS, LimitRule, Policy
from sessiond.domain.signals import Reaction, SignalType
from sessiond.domain.values import Millis
from sessiond_client.gateway.origins import own_form, safe_path

__all__ = [
    "DEFAULT_LISTEN",
    "SECTIONS",
    "SETTINGS",
    "TRANSPORTS",
    "ApplicationSection",
    "File",
    "LimitsSection",
    "PathText",
    "Section",
    "ServerSection",
    "SocketSection",
    "TlsSection",
    "parse_listen",
]

DEFAULT_LISTEN = "127.0.0.1:7443"
TRANSPORTS = ("grpcio", "native")
# RFC 6265 section 4.1.1, which takes `token` from RFC 2616 section 2.2.
_COOKIE_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,64}")
# Browsers ignore the case of a prefix.
_COOKIE_PREFIXES = ("__Host-", "__Secure-", "__Http-", "__Host-Http-")
_LONGEST_BURST = 60_000
_COLLECTOR = re.compile(r"https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}/?")
_CALLER_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_MAX_PORT = 65535
_MOST_ARGUMENTS = 64
_COOKIE_PATH = re.compile(r"/[ -+\--:<-~]{0,1023}")  # longer attributes are ignored by browsers (RFC 6265bis)


def parse_listen(value: Any) -> str:
    """Return an address to listen on. Raises ValueError with the accepted form.

    Ports are checked here: gRPC would take a larger number modulo 65,536.
    """
    if isinstance(value, str):
        if value.startswith("unix:") and len(value) > len("unix:") and "\0" not in value:
            return value
        host, _, port = value.rpartition(":")
        if host and port.isascii() and port.isdecimal() and int(port) <= _MAX_PORT:
            return value
    raise ValueError('must be "HOST:PORT" with a port from 0 to 65535, or "unix:PATH"')


def _one_of(kind: type[StrEnum]) -> Callable[[Any], StrEnum]:
    def parse(value: Any) -> StrEnum:
        if value not in list(kind):
            raise ValueError(must_be_one_of(list(kind), value))
        return kind(value)

    return parse


def _cookie_name(value: Any) -> str:
    if not isinstance(value, str) or not _COOKIE_NAME.fullmatch(value):
        raise ValueError("must have 1 to 64 characters of an RFC 6265 token: letters, digits, !#$%&'*+-.^_`|~")
    if value.lower().startswith(tuple(prefix.lower() for prefix in _COOKIE_PREFIXES)):
        raise ValueError(f"must not begin with {', '.join(_COOKIE_PREFIXES)}: the server adds the prefix itself")
    return value


def _cookie_path(value: Any) -> str:
    if not isinstance(value, str) or not _COOKIE_PATH.fullmatch(value):
        raise ValueError(
            'must begin with "/" and have at most 1024 characters of printable ASCII other than ";" and ","'
        )
    return value


def _path(value: Any) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("must be the path of a file or folder, and not empty")
    return value


def _socket_path(value: Any) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("must be the path of a socket, and not empty")
    if value.startswith("unix:"):
        raise ValueError("must be a path without unix:")
    return value


def _group(value: Any) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError('must be the name or the number of a group, as a string: "shop" or "1001"')
    return value


def _command(value: Any) -> tuple[str, ...]:
    """Return the arguments of a command. A text, as in a variable, is split like a shell does."""
    try:
        words = shlex.split(value) if isinstance(value, str) else value
    except ValueError:  # an open quotation; its message says less
        words = None
    if (
        not isinstance(words, list)
        or not 0 < len(words) <= _MOST_ARGUMENTS
        or not all(isinstance(word, str) and word and "\0" not in word for word in words)
    ):
        raise ValueError(
            'must be the command and its arguments, a list of text such as ["/usr/local/bin/unwrap", "-q"]'
        )
    if not words[0].startswith("/"):
        raise ValueError(f"must begin with an absolute path, not {shown(words[0])}")
    return tuple(words)


def _transport(value: Any) -> str:
    if value not in TRANSPORTS:
        raise ValueError(must_be_one_of(TRANSPORTS, value))
    if value == "native":
        try:
            import_module("pygrpc_native")
        except ImportError:
            raise ValueError(
                '"native" needs the package pygrpc-native, which cannot be imported; '
                "run in the server's virtual environment: pip install 'sessiond[native]'"
            ) from None
    return str(value)


def _envoy(value: Any) -> Any:
    if value is True:
        try:
            import_module("envoy.service.auth.v3.external_auth_pb2")
        except ImportError:
            raise ValueError(
                "needs the package xds-protos, which cannot be imported; run in the server's virtual environment: "
                "pip install 'sessiond[envoy]'"
            ) from None
    return value


def _caller_name(value: Any) -> str:
    if not isinstance(value, str) or not _CALLER_NAME.fullmatch(value):
        raise ValueError(
            "must be the name of a caller: 1 to 64 of a-z, 0-9, '.', '_', '-', the first one a letter or digit"
        )
    return value


def _burst(value: Any) -> Any:
    """Return a duration of the burst. It is kept in memory as time that is owed, so it is short."""
    if value > _LONGEST_BURST:
        raise ValueError("must be at most 1m")
    return value


def parse_http_listen(value: Any) -> str:
    """Return an address for HTTP; empty: none. Raises ValueError with the accepted form, or with what is missing."""
    return _optional_address(value, ("starlette", "uvicorn"), "http")


def parse_metrics_listen(value: Any) -> str:
    """Return an address for metrics; empty: none. Raises ValueError with the accepted form, or with what is missing."""
    return _optional_address(value, ("starlette", "uvicorn", "prometheus_client"), "metrics")


def _health_listen(value: Any) -> str:
    return _optional_address(value, (), "")


def parse_tracing(value: Any) -> str:
    """Return the address of a collector, or `env`; empty: none. Raises ValueError with the accepted form, or what is
    missing."""
    if value == "":
        return ""
    if not isinstance(value, str) or not (value == "env" or _COLLECTOR.fullmatch(value)):
        raise ValueError('must be "http://HOST:PORT" or "https://HOST:PORT" of a collector of OTLP over gRPC, or "env"')
    for package in ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.grpc"):
        # Not imported: that takes a second, and the configuration is also checked where nothing is served.
        if not _is_installed(package):
            raise ValueError(
                f"needs the package {package}, which is not installed; run in the server's virtual environment: "
                "pip install 'sessiond[tracing]'"
            )
    return value


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # of a package that it is in
        return False


def _optional_address(value: Any, packages: Sequence[str], extra: str) -> str:
    if value == "":
        return ""
    address = parse_listen(value)
    for package in packages:
        try:
            import_module(package)
        except ImportError:
            raise ValueError(
                f"needs the package {package}, which cannot be imported; run in the server's virtual environment: "
                f"pip install 'sessiond[{extra}]'"
            ) from None
    return address


def _store(value: Any) -> PostgresAddress | None:
    if not isinstance(value, str):
        raise ValueError('must be "sqlite" or "postgres://USER:PASSWORD@HOST:PORT/DATABASE"')
    return parse_store(value)


PathText = Annotated[str, BeforeValidator(_path)]
CookieName = Annotated[str, BeforeValidator(_cookie_name)]


class Section(BaseModel):
    """Keys that belong together. A key that it does not have is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    def given(self) -> dict[str, Any]:
        """Return the keys that the file sets. A policy takes the others from its preset, not from the defaults here."""
        return {name: getattr(self, name) for name in self.model_fields_set}


class _Guessing(Section):
    alarm_after: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    lock_after: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    flood_after: Annotated[int, Field(ge=1, le=1_000_000_000)] = 1
    window: Duration = Millis(0)
    lock_time: Duration = Millis(0)
    deny_valid: bool = False


class _Cookie(Section):
    name: CookieName = ""
    anonymous_name: CookieName = ""
    secure: bool = True
    same_site: Literal["Strict", "Lax", "None"] = "Lax"
    path: Annotated[str, BeforeValidator(_cookie_path)] = "/"
    clear_site_data: list[Literal["cache", "cookies", "storage", "executionContexts", "*"]] = []
    partitioned: bool = False

    def given(self) -> dict[str, Any]:
        """Return the keys that the file sets, as `CookieRules` takes them."""
        given = super().given()
        return given | {"clear_site_data": tuple(self.clear_site_data)} if "clear_site_data" in given else given


def _paths(value: Any) -> Any:
    if isinstance(value, list) and all(isinstance(path, str) and _COOKIE_PATH.fullmatch(path) for path in value):
        return tuple(value)
    raise ValueError('must be a list of paths without query, such as ["/static/"]')


def _origins(value: Any) -> Any:
    if isinstance(value, list) and all(isinstance(one, str) and own_form(one) and "*" not in one for one in value):
        return tuple(own_form(one) for one in value)
    raise ValueError('must be a list of origins (scheme, host, perhaps a port), such as ["https://app.example.com"]')


def _login_path(value: Any) -> str:
    if isinstance(value, str) and (not value or (safe_path(value, "") and "?" not in value and "#" not in value)):
        return value
    raise ValueError('must be a path of the site without query, such as "/login", or "" to answer 401')


Paths = Annotated[tuple[str, ...], BeforeValidator(_paths)]


class ProxySection(Section):
    """`[applications.NAME.proxy]`."""

    login_path: Annotated[str, BeforeValidator(_login_path)] = "/login"
    trusted_origins: Annotated[tuple[str, ...], BeforeValidator(_origins)] = ()
    csrf_exempt: Paths = ()
    ignored_paths: Paths = ()
    passive_paths: Paths = ()
    public_paths: Paths = ()
    forward_cookie: bool = False

    def settings(self) -> ProxySettings:
        """Return the settings, the defaults included."""
        return ProxySettings(**{name: getattr(self, name) for name in type(self).model_fields})


class ApplicationSection(Section):
    """`[applications.NAME]`."""

    preset: Literal["owasp-low", "owasp-high", "nist-aal1", "nist-aal2", "nist-aal3"] = "owasp-low"
    idle_timeout: Timeout = None
    absolute_timeout: Timeout = None
    renewal_timeout: Timeout = None
    renewal_overlap: Duration = Millis(0)
    roll_tolerance: Duration = Millis(0)
    lost_answer_tolerance: Duration = Millis(0)
    refresh_extends_lifetime: bool = False
    retention: Duration = Millis(0)
    anonymous_retention: Duration = Millis(0)
    answer_retention: Duration = Millis(0)
    max_data_bytes: Annotated[int, Field(ge=0, le=1024 * 1024)] = 0
    login_timeout: Duration = Millis(0)
    remember_idle_timeout: Timeout = None
    remember_absolute_timeout: Timeout = None
    remember_level: Annotated[int, Field(ge=0, le=3)] = 0
    elevation_timeout: Duration = Millis(0)
    csrf_overlap: DurationOrZero = Millis(0)
    max_sessions: Annotated[int, Field(ge=0, le=10_000)] = 0
    on_limit: Annotated[LimitRule, BeforeValidator(_one_of(LimitRule))] = LimitRule.REJECT
    ticket_timeout: Duration = Millis(0)
    companion_timeout: Duration = Millis(0)
    related_agents: Annotated[
        list[Annotated[list[Annotated[str, Field(min_length=1, max_length=128)]], Field(min_length=2, max_length=16)]],
        Field(max_length=16),
    ] = []
    ipv4_prefix: Annotated[int, Field(ge=8, le=32)] = 32
    ipv6_prefix: Annotated[int, Field(ge=16, le=128)] = 128
    concurrent_use_window: Duration = Millis(0)
    fold_window: Duration = Millis(0)
    reactions: dict[
        Annotated[SignalType, BeforeValidator(_one_of(SignalType))],
        Annotated[Reaction, BeforeValidator(_one_of(Reaction))],
    ] = {}
    guessing: _Guessing = _Guessing()
    cookie: _Cookie = _Cookie()
    proxy: ProxySection = ProxySection()

    def policy(self) -> Policy:
        """Return the preset with the keys that the file sets."""
        preset = PRESETS[self.preset]
        given = self.given()
        given.pop("preset", None)
        given.pop("proxy", None)
        if "related_agents" in given:
            given["related_agents"] = tuple(tuple(group) for group in self.related_agents)
        if "reactions" in given:
            given["reactions"] = MappingProxyType(dict(preset.reactions) | self.reactions)
        if "guessing" in given:
            given["guessing"] = replace(preset.guessing, **self.guessing.given())
        if "cookie" in given:
            given["cookie"] = replace(preset.cookie, **self.cookie.given())
        return replace(preset, **given)


class TlsSection(Section):
    """`[server.tls]`."""

    certificate: PathText | None = None
    key: PathText | None = None
    client_ca: PathText | None = None


class SocketSection(Section):
    """`[sockets.NAME]`."""

    path: Annotated[str, BeforeValidator(_socket_path)]
    mode: Literal["0600", "0660"] = "0600"
    group: Annotated[str, BeforeValidator(_group)] | None = None


class ServerSection(Section):
    """The section `[server]`."""

    listen: Annotated[str, BeforeValidator(parse_listen)] = DEFAULT_LISTEN
    socket_mode: Literal["0600", "0660"] = "0600"
    transport: Annotated[str, BeforeValidator(_transport)] = "grpcio"
    allow_remote_plaintext: bool = False
    allow_without_callers: bool = False
    data: PathText = "data"
    keyring_file: PathText | None = None
    keyring_command: Annotated[tuple[str, ...], BeforeValidator(_command)] = ()
    store: Annotated[Any, BeforeValidator(_store)] = None
    encrypt_data: bool = False
    event_retention: Duration = parse_duration("30d")
    cache_sessions: Annotated[int, Field(ge=1, le=100_000_000)] = 100_000
    subscriber_write_timeout: Duration = parse_duration("30s")
    max_subscribers: Annotated[int, Field(ge=1, le=100_000)] = 200
    max_validation_streams: Annotated[int, Field(ge=1, le=100_000)] = 128
    max_calls: Annotated[int, Field(ge=10, le=100_000)] = 3_000
    workers: Annotated[int, Field(ge=0, le=256)] = 0
    envoy: Annotated[bool, BeforeValidator(_envoy)] = False
    http_listen: Annotated[str, BeforeValidator(parse_http_listen)] = ""
    metrics_listen: Annotated[str, BeforeValidator(parse_metrics_listen)] = ""
    drain_delay: DurationOrZero = Millis(0)
    drain_timeout: DurationOrZero = parse_duration("5s")
    health_listen: Annotated[str, BeforeValidator(_health_listen)] = ""
    tracing: Annotated[str, BeforeValidator(parse_tracing)] = ""
    max_answer_bytes: Annotated[int, Field(ge=1_000_000, le=100_000_000_000)] = 256_000_000
    tls: TlsSection = TlsSection()


class _Log(Section):
    format: Literal["auto", "json", "console"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"
    audit_file: PathText | None = None


class _Networks(Section):
    operators: PathText | None = None
    countries: PathText | None = None


_MaxCalls = Annotated[int, Field(ge=0, le=100_000)]
_Rate = Annotated[int, Field(ge=0, le=1_000_000)]


class _CallerLimit(Section):
    """`[limits.callers.NAME]`."""

    max_calls: _MaxCalls = 0
    rate: _Rate = 0


class LimitsSection(Section):
    """`[limits]`."""

    max_calls_per_caller: _MaxCalls = 1_500
    max_calls_per_application: _MaxCalls = 0
    rate_per_caller: _Rate = 0
    rate_per_application: _Rate = 0
    burst: Annotated[Duration, AfterValidator(_burst)] = parse_duration("1s")
    callers: dict[Annotated[str, BeforeValidator(_caller_name)], _CallerLimit] = {}

    def limits(self) -> CallLimits:
        """Return the limits. A caller has those of all callers for what its own section does not set."""
        every = CallLimit(self.max_calls_per_caller, self.rate_per_caller)
        return CallLimits(
            every,
            CallLimit(self.max_calls_per_application, self.rate_per_application),
            self.burst,
            MappingProxyType({name: replace(every, **section.given()) for name, section in self.callers.items()}),
        )


class File(Section):
    """The whole of `sessiond.toml`."""

    server: ServerSection = ServerSection()
    log: _Log = _Log()
    networks: _Networks = _Networks()
    sockets: Annotated[dict[str, SocketSection], Field(max_length=64)] = {}
    limits: LimitsSection = LimitsSection()
    applications: dict[str, ApplicationSection] = Field(
        default_factory=lambda: {"default": ApplicationSection()}, min_length=1
    )


_OF_SERVER: Mapping[str, type[BaseModel]] = {
    "server": ServerSection,
    "server.tls": TlsSection,
    "log": _Log,
    "networks": _Networks,
    "limits": LimitsSection,
}
_TABLES = {*_OF_SERVER, "limits.callers"}
"""The keys of these sections that are sections themselves."""
SETTINGS: Mapping[str, Any] = MappingProxyType(
    {
        f"{section}.{name}": field.annotation
        for section, model in _OF_SERVER.items()
        for name, field in model.model_fields.items()
        if f"{section}.{name}" not in _TABLES
    }
)
"""The type of each key outside of the sections that have a name of their own, by its path, such as `server.tls.key`."""

SECTIONS: Mapping[tuple[str, ...], type[BaseModel]] = MappingProxyType(
    {
        (): File,
        ("server",): ServerSection,
        ("server", "tls"): TlsSection,
        ("log",): _Log,
        ("networks",): _Networks,
        ("sockets", "NAME"): SocketSection,
        ("limits",): LimitsSection,
        ("limits", "callers", "NAME"): _CallerLimit,
        ("applications", "NAME"): ApplicationSection,
        ("applications", "NAME", "guessing"): _Guessing,
        ("applications", "NAME", "cookie"): _Cookie,
        ("applications", "NAME", "proxy"): ProxySection,
    }
)
"""Every section with a fixed set of keys, by its path."""
