"""TLS: which authorities a client trusts, the certificate that it shows, and files that change."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from sessiond_client.arguments import invalid_argument
from sessiond_client.errors import InvalidArgument, Violation

__all__ = ["ChannelCredentials", "TlsFiles", "credentials_of", "options_in"]

_PATHS = ("ca", "certificate", "key")
_VARIABLES = {
    "ca": "SESSIOND_TLS_CA",
    "certificate": "SESSIOND_TLS_CLIENT_CERTIFICATE",
    "key": "SESSIOND_TLS_CLIENT_KEY",
}
_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files for TLS, by path.

    The client reads them when it is created. If a connection fails or a stream begins, it reads files that have changed
    since. So short-lived certificates need no restart.
    """

    ca: str | Path = ""
    """The certificates that may sign the authority's; empty: those that gRPC trusts, which are public ones."""
    certificate: str | Path = ""
    """The certificate that the client shows, and those of intermediate authorities; empty: it shows none."""
    key: str | Path = ""
    """The private key of the certificate."""


class ChannelCredentials:
    """The credentials of new channels, from files that may change. Its methods may be called from any thread."""

    def __init__(self, files: TlsFiles, field: str = "tls") -> None:
        """Read the files. Raises `InvalidArgument` with the file and the remedy if they cannot be used."""
        self._files = files
        self._field = field
        self._lock = threading.Lock()
        self._signature = self._state()
        self._current = _credentials(files, field)

    def current(self) -> grpc.ChannelCredentials:
        """The credentials for a new channel, from the files as `changed` has found them last."""
        return self._current

    def changed(self) -> bool:
        """Whether the files have changed since the last call, and can be used."""
        with self._lock:
            signature = self._state()
            if signature == self._signature:
                return False
            try:
                self._current = _credentials(self._files, self._field)
            except InvalidArgument:
                return False  # perhaps they are just being replaced: the next call looks again
            self._signature = signature
            return True

    def _state(self) -> list[Any]:
        found: list[Any] = []
        for name in _PATHS:
            try:
                state = os.stat(getattr(self._files, name) or os.devnull)  # follows symbolic links
            except OSError:
                found.append(None)
            else:
                found.append((state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns))
        return found


def credentials_of(
    target: str, tls: bool | TlsFiles, credentials: grpc.ChannelCredentials | None
) -> ChannelCredentials | None:
    """The credentials that the option `tls` describes; None: no TLS, or `credentials`. Raises `InvalidArgument`."""
    if tls is False:
        return None
    if credentials is not None:
        raise invalid_argument(Violation("tls", "must not be combined with credentials; pass one of them"))
    if target.startswith("unix:"):
        raise invalid_argument(Violation("tls", "must be False for a Unix socket, whose mode decides who connects"))
    return ChannelCredentials(TlsFiles() if tls is True else tls)


def options_in(environment: Mapping[str, str]) -> dict[str, Any]:
    """The target and the options of a client in an environment. Raises `InvalidArgument`."""
    found: dict[str, Any] = {"target": environment.get("SESSIOND_TARGET") or "127.0.0.1:7443"}
    if application := environment.get("SESSIOND_APPLICATION"):
        found["application"] = application
    if paths := {name: environment[variable] for name, variable in _VARIABLES.items() if environment.get(variable)}:
        found["tls"] = TlsFiles(**paths)
    if (allowed := _boolean(environment, "SESSIOND_ALLOW_REMOTE_PLAINTEXT")) is not None:
        found["allow_remote_plaintext"] = allowed
    if (wanted := _boolean(environment, "SESSIOND_TLS")) is not None:
        if not wanted and paths:
            raise invalid_argument(
                Violation("SESSIOND_TLS", f"is false, but {_VARIABLES[next(iter(paths))]} is set; unset one of them")
            )
        found.setdefault("tls", wanted)
    return found


def _boolean(environment: Mapping[str, str], name: str) -> bool | None:
    """The value of a variable; None: it is not set."""
    if not (text := environment.get(name)):
        return None
    if (found := _BOOLEANS.get(text.lower())) is None:
        raise invalid_argument(Violation(name, "must be true or false"))
    return found


def _credentials(files: TlsFiles, field: str) -> grpc.ChannelCredentials:
    authorities = _authorities(files.ca, f"{field}.ca") if files.ca else None
    if not files.certificate and not files.key:
        return grpc.ssl_channel_credentials(authorities)
    for name, other in (("certificate", "key"), ("key", "certificate")):
        if not getattr(files, name):
            raise _bad(f"{field}.{name}", f"is missing, and {other} is set; name both")
    certificate, key = _pair(files, field)
    return grpc.ssl_channel_credentials(authorities, key, certificate)


def _authorities(path: str | Path, field: str) -> bytes:
    import ssl  # here: a client without TLS does not need it

    text = _read(path, field)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text.decode("latin-1"))
    except ssl.SSLError:
        raise _bad(field, f"{path} has no certificate in PEM form; name another file") from None
    return text


def _pair(files: TlsFiles, field: str) -> tuple[bytes, bytes]:
    """The certificate and the key, checked by the standard library: gRPC would say nothing until it connects."""
    import ssl

    certificate, key = _read(files.certificate, f"{field}.certificate"), _read(files.key, f"{field}.key")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cadata=certificate.decode("latin-1"))
    except ssl.SSLError:
        raise _bad(f"{field}.certificate", f"{files.certificate} has no certificate in PEM form") from None
    try:
        context.load_cert_chain(files.certificate, files.key, password="")
    except (ssl.SSLError, OSError) as error:
        if getattr(error, "reason", "") == "KEY_VALUES_MISMATCH":
            problem = f"{files.key} is not the private key of the certificate in {files.certificate}; name the pair"
        else:
            problem = f"{files.key} has no private key in PEM form that can be read without a password"
        raise _bad(f"{field}.key", problem) from None
    return certificate, key


def _read(path: str | Path, field: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "no such path"
        raise _bad(field, f"{path} cannot be read: {reason}; name a PEM file that this user can read") from None


def _bad(field: str, problem: str) -> InvalidArgument:
    return invalid_argument(Violation(field, problem))
