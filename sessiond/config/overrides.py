"""Settings from outside the file: environment variables and options of the command line.

Every key of `[server]`, `[server.tls]`, `[log]`, `[networks]` and `[limits]` has a variable: `SESSIOND_LISTEN` for
`server.listen`, `SESSIOND_TLS_KEY` for `server.tls.key`, `SESSIOND_LIMITS_BURST` for `limits.burst`. Policies, and the
limits of single callers, are set in the file only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sessiond.config.near import nearest
from sessiond.config.sections import SETTINGS
from sessiond.domain.immutable import immutable

__all__ = ["Override", "overrides_in", "overrides_of", "unknown_variables", "variable_of"]

_PREFIX = "SESSIOND_"
_OTHER_VARIABLES = (
    "SESSIOND_CONFIG",
    "SESSIOND_TARGET",
    "SESSIOND_KEY_FILE",
    "SESSIOND_COPY_FROM",
    "SESSIOND_COPY_TO",
    "SESSIOND_UPSTREAM",
    "SESSIOND_UPSTREAM_CA",
    "SESSIOND_UPSTREAM_CERTIFICATE",
    "SESSIOND_UPSTREAM_KEY",
    "SESSIOND_TLS",
    "SESSIOND_TLS_CA",
    "SESSIOND_TLS_CLIENT_CERTIFICATE",
    "SESSIOND_TLS_CLIENT_KEY",
    "SESSIOND_APPLICATION",
    "SESSIOND_CONTEXT",
    "SESSIOND_CACHE_ENTRIES",
    "SESSIOND_CACHE_BYTES",
    "SESSIOND_MAX_STREAMS",
)
"""Variables that set no key: the path of the file, and those that clients and `sessiond sidecar` read."""
_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,18}")
_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_OF_KUBERNETES = re.compile(
    r"[A-Z0-9_]+_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)=.*"
    r"|[A-Z0-9_]+_PORT=(tcp|udp|sctp)://.*"
)
"""What Kubernetes adds to a container's environment for each service, with the value."""


@immutable
class Override:
    """One setting from outside the file.

    key     its path in the file, such as `server.listen`
    value   its value, as TOML would have it
    origin  the variable (`SESSIOND_LISTEN`) or the option (`--listen`) that sets it
    """

    key: str
    value: Any
    origin: str


def variable_of(key: str) -> str:
    """Return the environment variable of a key: `SESSIOND_LISTEN` for `server.listen`."""
    return _PREFIX + key.removeprefix("server.").replace(".", "_").upper()


def overrides_in(environment: Mapping[str, str]) -> list[Override]:
    """Return the settings in an environment, not checked yet. An empty variable counts as not set."""
    return overrides_of(SETTINGS, environment)


def overrides_of(kinds: Mapping[str, Any], environment: Mapping[str, str]) -> list[Override]:
    """Return the settings in an environment that have one of these keys, each with its type, not checked yet."""
    return [
        Override(key, _value(kind, environment[variable_of(key)]), variable_of(key))
        for key, kind in kinds.items()
        if environment.get(variable_of(key))
    ]


def unknown_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return each variable that begins with `SESSIOND_` and sets nothing, with the one that was probably meant, or "".

    Empty ones are left out, and those that Kubernetes sets for a service whose name begins with `sessiond`.
    """
    known = [variable_of(key).removeprefix(_PREFIX) for key in SETTINGS]
    known += [name.removeprefix(_PREFIX) for name in _OTHER_VARIABLES]
    found = {}
    for variable, value in environment.items():
        # Without the prefix, which would make any two of them similar.
        name = variable.removeprefix(_PREFIX)
        unknown = value and variable.startswith(_PREFIX) and name not in known
        if unknown and not _OF_KUBERNETES.fullmatch(f"{variable}={value}"):
            meant = nearest(name, known)
            found[variable] = _PREFIX + meant if meant else ""
    return found


def _value(kind: Any, text: str) -> Any:
    """Return the value of a text if it is one of that type, else the text itself, which the check then refuses."""
    if kind is bool:
        return _BOOLEANS.get(text.lower(), text)
    if kind is int and _WHOLE_NUMBER.fullmatch(text):
        return int(text)
    return text
