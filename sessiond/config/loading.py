"""Loading: turn a file into a frozen configuration, or report every problem in it with its line."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from pydantic import ValidationError

from sessiond.config.caller_sockets import CallerSocket, socket_problems, sockets_in
from sessiond.config.contradictions import Contradiction, contradictions
from sessiond.config.lines import KeyPath, line_index, nearest_line
from sessiond.config.overrides import Override
from sessiond.config.problems import path_of, remedy_for
from sessiond.config.proxy import ProxySettings
from sessiond.config.sections import DEFAULT_LISTEN, SETTINGS, File, ServerSection, TlsSection
from sessiond.config.store_address import PostgresAddress
from sessiond.domain.call_limits import CallLimits
from sessiond.domain.immutable import immutable
from sessiond.domain.policy import Policy
from sessiond.domain.values import Millis
from sessiond_client.targets import is_local

__all__ = ["DEFAULT_LISTEN", "BadConfig", "Config", "effective", "load_config"]

_LIMITS = "limits."
_Lines = Mapping[KeyPath, int]
_MOST_APPLICATIONS = 500
"""GetAuthority answers with all policies in one message: 1.3 MB for 500 ordinary ones. Clients accept 4 MiB."""


class _Problem(NamedTuple):
    """What is wrong in a file, or what would be right."""

    line: int
    key: KeyPath
    remedy: str

    def text(self, file: str) -> str:
        return f"{file}:{self.line}: {'.'.join(self.key)}: {self.remedy}"


class BadConfig(Exception):
    """The configuration cannot be used. The text has a line for each problem: where it is, the key, and the remedy.

    The problems of the file come first, in the order of its lines, then those of variables and options, and then
    settings of the server that do not fit together.
    """


@immutable
class Config:
    """Every setting, checked. Times are in milliseconds.

    listen                    `host:port`, or `unix:path`
    socket_mode               the mode of the Unix socket
    transport                 what carries the calls: `grpcio`, or `native` for the package pygrpc-native
    allow_remote_plaintext    whether to listen on an address that other machines can reach, without encryption
    allow_without_callers     whether to listen on such an address although there are no callers
    tls_certificate, tls_key  the PEM files of the server's certificate and its private key; None: no TLS
    tls_client_ca             a PEM file with the certificates that may sign those of clients, which must then show one
    data                      the folder of the embedded database and the key file
    keyring_file              a file that something else provides, from which the key ring comes; None: not from one
    keyring_command           a command whose output is the key ring; empty: none
    store                     the Postgres database that replicas share; None: the embedded database in `data`
    encrypt_data              whether session data is encrypted at rest
    event_retention           how long events are kept
    cache_sessions            how many sessions are kept in memory
    subscriber_write_timeout  how long a subscriber, or a stream of validations, may leave a message unread
    max_subscribers           how many subscribers are served at once; one connection may have half of them
    max_validation_streams    how many streams of validations are served at once; one connection may have half of them
    max_calls                 how many calls, streams included, are served at once; one connection may have half of them
    workers                   how many processes answer on the port beside the one that owns the store; 0: that one does
    envoy                     whether Envoy's external authorization is served on the same address
    http_listen               where proxies ask over HTTP: `host:port`, or `unix:path`; empty: nowhere
    metrics_listen            where Prometheus asks for metrics: `host:port`, or `unix:path`; empty: nowhere
    drain_delay               how long calls are answered after the stop was announced to health checks
    drain_timeout             how long calls under way may then take to end
    health_listen             where orchestrators check health: `host:port`, or `unix:path`; empty: on `listen` only
    tracing                   the collector to which spans of calls are sent: `http://host:port`, or `env`; empty: none
    max_answer_bytes          how many bytes of answers are kept for repeated calls; the oldest are removed first
    log_format, log_level     how logs are written, and which
    log_audit_file            the file of audit lines; None: they go to the log
    operators, countries      MaxMind files with the operator and the country of each address
    sockets                   the sockets of callers, on which whoever can connect is that caller
    limits                    how many calls each caller, and all callers of one application, may make
    policies                  the policy of each application
    proxies                   for each application, how proxies in front of it use its sessions
    origins                   for each application, where each of its `effective` values comes from: `preset NAME`, or
                              `FILE:LINE`
    server_origins            the same for the keys of the other sections, such as `server.listen`: `default`,
                              `FILE:LINE`, a variable (`SESSIOND_LISTEN`) or an option (`--listen`)
    files                     the files that were read; empty if there was none
    """

    listen: str
    socket_mode: int
    transport: str
    allow_remote_plaintext: bool
    allow_without_callers: bool
    tls_certificate: Path | None
    tls_key: Path | None
    tls_client_ca: Path | None
    data: Path
    keyring_file: Path | None
    keyring_command: tuple[str, ...]
    store: PostgresAddress | None
    encrypt_data: bool
    event_retention: Millis
    cache_sessions: int
    subscriber_write_timeout: Millis
    max_subscribers: int
    max_validation_streams: int
    max_calls: int
    workers: int
    envoy: bool
    http_listen: str
    metrics_listen: str
    drain_delay: Millis
    drain_timeout: Millis
    health_listen: str
    tracing: str
    max_answer_bytes: int
    log_format: str
    log_level: str
    log_audit_file: Path | None
    operators: Path | None
    countries: Path | None
    sockets: tuple[CallerSocket, ...]
    limits: CallLimits
    policies: Mapping[str, Policy]
    proxies: Mapping[str, ProxySettings]
    origins: Mapping[str, Mapping[str, str]]
    server_origins: Mapping[str, str]
    files: tuple[Path, ...]

    def restart_required(self, other: Config) -> list[str]:
        """Return the keys (`server.listen`) whose values differ and which a server reads only when it starts.

        These are all keys outside of the sections of applications and limits, which a reload replaces.
        """
        keys = [key for key in self.server_origins if not key.startswith(_LIMITS)]
        changed = [key for key in keys if getattr(self, _field_of(key)) != getattr(other, _field_of(key))]
        return changed if self.sockets == other.sockets else [*changed, "sockets"]


def load_config(path: Path | None, overrides: Sequence[Override] = ()) -> Config:
    """Return the configuration in a file; without a file, one application `default` with preset `owasp-low`.

    Overrides replace what the file sets, and of two for the same key the later one counts. Raises `BadConfig` with
    every problem that was found.
    """
    name, text = str(path), "" if path is None else _read(path)
    document, lines = _parse(name, text)
    chosen = {override.key: override for override in overrides}
    file, wrong = _checked(document)
    outside, wrong_outside = _checked(_nested(chosen))
    # What one wrong value has to do with others is not known. The other settings are compared nevertheless.
    unknown = {path for path, _ in (*wrong, *wrong_outside)}
    policies = {application: section.policy() for application, section in file.applications.items()}
    problems = [_Problem(nearest_line(lines, path), path, remedy) for path, remedy in wrong]
    problems += _too_many_applications(document, lines)
    listen = outside.server.given().get("listen", file.server.listen)
    problems += [
        _Problem(nearest_line(lines, path), path, remedy) for path, remedy in socket_problems(file.sockets, listen)
    ]
    problems += [
        _contradiction(lines, application, found)
        for application, policy in policies.items()
        for found in contradictions(application, policy)
        if not _is_about(found, application, unknown)
    ]
    texts = [problem.text(name) for problem in sorted(problems, key=lambda problem: problem.line)]
    texts += [f"{chosen['.'.join(path)].origin}: {remedy}" for path, remedy in wrong_outside]
    server, log, networks = (
        getattr(file, section).model_copy(update=getattr(outside, section).given())
        for section in ("server", "log", "networks")
    )
    limits = file.limits.model_copy(update=outside.limits.given())
    tls = file.server.tls.model_copy(update=outside.server.tls.given())
    server_origins = _server_origins(name, lines, chosen)
    if not any(path[0] == "server" for path in unknown):
        texts += _server_problems(server, tls, server_origins)
    if texts:
        raise BadConfig("\n".join(texts))
    return Config(
        listen=server.listen,
        socket_mode=int(server.socket_mode, 8),
        transport=server.transport,
        allow_remote_plaintext=server.allow_remote_plaintext,
        allow_without_callers=server.allow_without_callers,
        tls_certificate=_path(tls.certificate),
        tls_key=_path(tls.key),
        tls_client_ca=_path(tls.client_ca),
        data=Path(server.data),
        keyring_file=_path(server.keyring_file),
        keyring_command=tuple(server.keyring_command),
        store=server.store,
        encrypt_data=server.encrypt_data,
        event_retention=server.event_retention,
        cache_sessions=server.cache_sessions,
        subscriber_write_timeout=server.subscriber_write_timeout,
        max_subscribers=server.max_subscribers,
        max_validation_streams=server.max_validation_streams,
        max_calls=server.max_calls,
        workers=server.workers,
        envoy=server.envoy,
        http_listen=server.http_listen,
        metrics_listen=server.metrics_listen,
        drain_delay=server.drain_delay,
        drain_timeout=server.drain_timeout,
        health_listen=server.health_listen,
        tracing=server.tracing,
        max_answer_bytes=server.max_answer_bytes,
        log_format=log.format,
        log_level=log.level,
        log_audit_file=_path(log.audit_file),
        operators=_path(networks.operators),
        countries=_path(networks.countries),
        sockets=sockets_in(file.sockets),
        limits=limits.limits(),
        policies=policies,
        proxies={application: section.proxy.settings() for application, section in file.applications.items()},
        origins={application: _origins(name, lines, application, policy) for application, policy in policies.items()},
        server_origins=server_origins,
        files=() if path is None else (path,),
    )


def _field_of(key: str) -> str:
    """Return the field of `Config` for a key outside of the sections of applications and limits."""
    section, _, name = key.partition(".")
    return f"log_{name}" if section == "log" else name.replace(".", "_")


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


def effective(policy: Policy) -> Mapping[str, Any]:
    """Return every value of a policy by its path in the file: `idle_timeout`, `reactions.ip_change`, `cookie.name`."""
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
    except FileNotFoundError as error:
        raise BadConfig(f"{path}: no such file; create it, or name another one") from error
    except IsADirectoryError as error:
        raise BadConfig(f"{path}: is a folder; name the file in it") from error
    except PermissionError as error:
        raise BadConfig(f"{path}: permission denied; make it readable for this user") from error
    except OSError as error:
        raise BadConfig(f"{path}: cannot be read: {error.strerror}; name another file") from error
    except UnicodeDecodeError as error:
        raise BadConfig(f"{path}: is not UTF-8 text; save it in that encoding") from error


def _parse(name: str, text: str) -> tuple[dict[str, Any], _Lines]:
    """Return the document and the lines of its keys."""
    try:
        return tomllib.loads(text), line_index(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        # The parser gives no line for an error at the end of the document.
        raise BadConfig(f"{name}:{line[1] if line else len(text.splitlines())}: invalid TOML: {error}") from error
    except RecursionError:
        raise BadConfig(
            f"{name}: has values that are nested too deeply; no setting needs more than three levels"
        ) from None
    except ValueError:
        # Python refuses to convert numbers of thousands of digits.
        raise BadConfig(f"{name}: has a number, a date or a time that is out of range; correct it") from None


def _checked(document: Mapping[str, Any]) -> tuple[File, list[tuple[KeyPath, str]]]:
    """Return the settings in a document, without those that are wrong, and the key and remedy of each problem."""
    try:
        return File.model_validate(document), []
    except ValidationError as error:
        wrong = [(path_of(detail), remedy_for(detail)) for detail in error.errors()]
    try:
        return File.model_validate(_without(document, [path for path, _ in wrong])), wrong
    except ValidationError:
        return File(), wrong  # one of the wrong settings hid a further problem


def _without(document: Mapping[str, Any], paths: Sequence[KeyPath]) -> dict[str, Any]:
    """Return a document without these keys. A wrong element of a list counts as the list."""
    rest: dict[str, Any] = {}
    for key, value in document.items():
        below = [path[1:] for path in paths if path[0] == key]
        if not below:
            rest[key] = value
        elif isinstance(value, dict) and all(below):
            rest[key] = _without(value, below)
    return rest


def _is_about(found: Contradiction, application: str, unknown: set[KeyPath]) -> bool:
    """Return whether a contradiction may come from a setting that was left out because it is wrong."""
    here = ("applications", application)
    keys = {tuple(key.split(".")) for key in (found.key, found.other, "preset") if key}
    return any(path == here or (path[:2] == here and path[2:] in keys) for path in unknown)


def _server_problems(server: ServerSection, tls: TlsSection, origins: Mapping[str, str]) -> Iterator[str]:
    """Yield what does not fit together in the settings of the server."""
    if problem := _tls_problem(tls, server.listen, server.transport, origins):
        yield problem
    if server.keyring_file is not None and server.keyring_command:
        origin = _where("server.keyring_command", origins)
        yield f"{origin}: server.keyring_file is set too; keep one of them, because a key ring has one source"
    if server.transport == "native" and not is_local(server.listen):
        yield _remote_native(origins, server.listen)


def _nested(overrides: Mapping[str, Override]) -> dict[str, Any]:
    """Return overrides as a document that has nothing else."""
    document: dict[str, Any] = {}
    for key, override in overrides.items():
        *sections, name = key.split(".")
        table = document
        for section in sections:
            table = table.setdefault(section, {})
        table[name] = override.value
    return document


def _origins(name: str, lines: _Lines, application: str, policy: Policy) -> Mapping[str, str]:
    def origin(key: str) -> str:
        line = lines.get(("applications", application, *key.split(".")))
        return f"preset {policy.preset}" if line is None else f"{name}:{line}"

    return MappingProxyType({key: origin(key) for key in effective(policy)})


def _server_origins(name: str, lines: _Lines, overrides: Mapping[str, Override]) -> Mapping[str, str]:
    def origin(key: str) -> str:
        override = overrides.get(key)
        if override is not None:
            return override.origin
        path = tuple(key.split("."))
        return f"{name}:{lines[path]}" if path in lines else "default"

    return MappingProxyType({key: origin(key) for key in SETTINGS})


def _tls_problem(tls: TlsSection, listen: str, transport: str, origins: Mapping[str, str]) -> str:
    """Return what does not fit together in the settings of TLS; empty if everything does."""
    for name, other in (("certificate", "key"), ("key", "certificate"), ("client_ca", "certificate")):
        if getattr(tls, name) is not None and getattr(tls, other) is None:
            remedy = f"needs server.tls.{other} too: TLS needs a certificate and its key"
            return f"{_where('server.tls.' + name, origins)}: {remedy}"
    if tls.certificate is None:
        return ""
    if transport == "native":
        return (
            f'{_where("server.transport", origins)}: "native" has no TLS; choose "grpcio", or remove server.tls and '
            "put a proxy that adds TLS in front, on this machine"
        )
    if listen.startswith("unix:"):
        return (
            f"{_where('server.tls.certificate', origins)}: {listen} is a Unix socket, which needs no TLS; listen on "
            "HOST:PORT, or remove server.tls"
        )
    return ""


def _where(key: str, origins: Mapping[str, str]) -> str:
    """Return where a key is set: a variable or an option, or the file with its line, and the key."""
    origin = origins[key]
    return f"{origin}: {key}" if ":" in origin else origin


def _remote_native(origins: Mapping[str, str], listen: str) -> str:
    """Return the problem of the native transport on an address that other machines can reach."""
    return (
        f'{_where("server.transport", origins)}: "native" does not limit the memory that one caller can take, and '
        f"{listen} can be reached from other machines; listen on 127.0.0.1 or unix:PATH behind a proxy on this "
        'machine, or choose "grpcio"'
    )


def _too_many_applications(document: Mapping[str, Any], lines: _Lines) -> list[_Problem]:
    """Return the problem at the first application beyond the limit, if there is one."""
    applications = document.get("applications")
    if not isinstance(applications, dict) or len(applications) <= _MOST_APPLICATIONS:
        return []
    path = ("applications", list(applications)[_MOST_APPLICATIONS])
    remedy = f"a file has at most {_MOST_APPLICATIONS} applications, and this one has {len(applications)}"
    return [_Problem(nearest_line(lines, path), path, remedy)]


def _contradiction(lines: _Lines, application: str, found: Contradiction) -> _Problem:
    """Return the problem of a contradiction, at the line of the key, or of the other key if only that is set."""
    here = ("applications", application)
    path, other = (*here, *found.key.split(".")), (*here, *found.other.split("."))
    line = lines[other] if path not in lines and other in lines else nearest_line(lines, path)
    return _Problem(line, path, found.remedy)
