"""The configuration: `sessiond.toml`, environment variables and options, checked once and never changed afterwards."""

from sessiond.config.durations import format_duration, parse_duration
from sessiond.config.loading import DEFAULT_LISTEN, BadConfig, Config, effective, load_config
from sessiond.config.overrides import Override, overrides_in, unknown_variables, variable_of
from sessiond.config.proxy import ProxySettings, change_proxies
from sessiond.config.sections import parse_listen
from sessiond.config.sidecar import SidecarConfig, load_sidecar, parse_upstream, sidecar_overrides_in
from sessiond.config.standards import Departure, departures
from sessiond.config.starting import named_files, remote_plaintext, workers_need_port

__all__ = [
    "DEFAULT_LISTEN",
    "BadConfig",
    "Config",
    "Departure",
    "Override",
    "ProxySettings",
    "SidecarConfig",
    "change_proxies",
    "departures",
    "effective",
    "named_files",
    "remote_plaintext",
    "workers_need_port",
    "format_duration",
    "load_config",
    "load_sidecar",
    "overrides_in",
    "unknown_variables",
    "parse_duration",
    "parse_listen",
    "parse_upstream",
    "sidecar_overrides_in",
    "variable_of",
]
