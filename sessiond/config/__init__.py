"""The configuration: `sessiond.toml`, parsed and checked once, frozen from then on."""

from sessiond.config.durations import format_duration, parse_duration
from sessiond.config.loading import DEFAULT_LISTEN, BadConfig, Config, effective, load_config
from sessiond.config.sections import parse_listen
from sessiond.config.standards import Departure, departures

__all__ = [
    "DEFAULT_LISTEN",
    "BadConfig",
    "Config",
    "Departure",
    "departures",
    "effective",
    "format_duration",
    "load_config",
    "parse_duration",
    "parse_listen",
]
