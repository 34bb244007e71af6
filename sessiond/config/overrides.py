"""Settings from outside the file: environment variables and options of the command line.

Every key of `[server]`, `[log]` and `[networks]` has a variable: `SESSIOND_LISTEN` for `server.listen`,
`SESSIOND_LOG_LEVEL` for `log.level`. Policies are set in the file only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sessiond.config.near import nearest
from sessiond.config.sections import SECTIONS
from sessiond.domain.immutable import immutable

__all__ = ["Override", "misspelt_variables", "overrides_in", "variable_of"]

_PREFIX = "SESSIOND_"
_SECTIONS = ("server", "log", "networks")
_OTHER_VARIABLES = ("SESSIOND_CONFIG", "SESSIOND_TARGET")
"""Variables that set no key: the path of the file, and the server that `sessionctl` calls."""
_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,18}")
_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_ALMOST_THE_SAME = 0.75


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
    return [
        Override(key, _value(kind, environment[variable_of(key)]), variable_of(key))
        for key, kind in _keys().items()
        if environment.get(variable_of(key))
    ]


def misspelt_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return each variable that resembles one of ours and is none, with the one that was probably meant.

    Other variables that begin with `SESSIOND_` are left alone: Kubernetes sets some for a service of that name.
    """
    known = [variable_of(key).removeprefix(_PREFIX) for key in _keys()]
    known += [name.removeprefix(_PREFIX) for name in _OTHER_VARIABLES]
    found = {}
    for variable in environment:
        # Without the prefix, which would make any two of them similar.
        name = variable.removeprefix(_PREFIX)
        if variable.startswith(_PREFIX) and name not in known:
            meant = nearest(name, known, similarity=_ALMOST_THE_SAME)
            if meant:
                found[variable] = _PREFIX + meant
    return found


def _keys() -> dict[str, Any]:
    """Return the type of each key that has a variable."""
    return {
        f"{section}.{name}": field.annotation
        for section in _SECTIONS
        for name, field in SECTIONS[section,].model_fields.items()
    }


def _value(kind: Any, text: str) -> Any:
    """Return the value of a text if it is one of that type, else the text itself, which the check then refuses."""
    if kind is bool:
        return _BOOLEANS.get(text.lower(), text)
    if kind is int and _WHOLE_NUMBER.fullmatch(text):
        return int(text)
    return text
