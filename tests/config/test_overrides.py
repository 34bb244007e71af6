"""Environment variables and options: they replace what the file sets, and are checked in the same way."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from sessiond.config import BadConfig, Config, Override, load_config, overrides_in, unknown_variables, variable_of
from sessiond.config.store_address import PostgresAddress
from sessiond.domain.call_limits import CallLimit, CallLimits
from sessiond.domain.values import Millis

# For each key outside of the applications' sections: its variable, a text, and the value of the field.
VARIABLES = {
    "server.listen": ("SESSIOND_LISTEN", "unix:/run/s", "unix:/run/s"),
    "server.socket_mode": ("SESSIOND_SOCKET_MODE", "0660", 0o660),
    "server.transport": ("SESSIOND_TRANSPORT", "native", "native"),
    "server.allow_without_callers": ("SESSIOND_ALLOW_WITHOUT_CALLERS", "true", True),
    "server.allow_remote_plaintext": ("SESSIOND_ALLOW_REMOTE_PLAINTEXT", "true", True),
    "server.data": ("SESSIOND_DATA", "elsewhere", Path("elsewhere")),
    "server.store": ("SESSIOND_STORE", "postgres://db/sessiond", PostgresAddress("postgres://db/sessiond")),
    "server.keyring_file": ("SESSIOND_KEYRING_FILE", "ring.key", Path("ring.key")),
    "server.keyring_command": ("SESSIOND_KEYRING_COMMAND", "/bin/unwrap 'a b' -q", ("/bin/unwrap", "a b", "-q")),
    "server.encrypt_data": ("SESSIOND_ENCRYPT_DATA", "1", True),
    "server.event_retention": ("SESSIOND_EVENT_RETENTION", "2d", 172_800_000),
    "server.cache_sessions": ("SESSIOND_CACHE_SESSIONS", "7", 7),
    "server.subscriber_write_timeout": ("SESSIOND_SUBSCRIBER_WRITE_TIMEOUT", "7s", 7_000),
    "server.max_subscribers": ("SESSIOND_MAX_SUBSCRIBERS", "8", 8),
    "server.max_validation_streams": ("SESSIOND_MAX_VALIDATION_STREAMS", "9", 9),
    "server.max_calls": ("SESSIOND_MAX_CALLS", "77", 77),
    "server.workers": ("SESSIOND_WORKERS", "3", 3),
    "server.envoy": ("SESSIOND_ENVOY", "true", True),
    "server.http_listen": ("SESSIOND_HTTP_LISTEN", "unix:h", "unix:h"),
    "server.metrics_listen": ("SESSIOND_METRICS_LISTEN", "unix:m", "unix:m"),
    "server.drain_delay": ("SESSIOND_DRAIN_DELAY", "7s", 7_000),
    "server.drain_timeout": ("SESSIOND_DRAIN_TIMEOUT", "8s", 8_000),
    "server.health_listen": ("SESSIOND_HEALTH_LISTEN", "unix:c", "unix:c"),
    "server.tracing": ("SESSIOND_TRACING", "http://collector:4317", "http://collector:4317"),
    "server.max_answer_bytes": ("SESSIOND_MAX_ANSWER_BYTES", "7000000", 7_000_000),
    "server.tls.certificate": ("SESSIOND_TLS_CERTIFICATE", "s.crt", Path("s.crt")),
    "server.tls.key": ("SESSIOND_TLS_KEY", "s.key", Path("s.key")),
    "server.tls.client_ca": ("SESSIOND_TLS_CLIENT_CA", "ca.pem", Path("ca.pem")),
    "log.format": ("SESSIOND_LOG_FORMAT", "json", "json"),
    "log.level": ("SESSIOND_LOG_LEVEL", "debug", "debug"),
    "log.audit_file": ("SESSIOND_LOG_AUDIT_FILE", "audit.log", Path("audit.log")),
    "networks.operators": ("SESSIOND_NETWORKS_OPERATORS", "a.mmdb", Path("a.mmdb")),
    "networks.countries": ("SESSIOND_NETWORKS_COUNTRIES", "c.mmdb", Path("c.mmdb")),
}

LIMITS = {
    "limits.max_calls_per_caller": ("SESSIOND_LIMITS_MAX_CALLS_PER_CALLER", "7", CallLimits(CallLimit(7))),
    "limits.rate_per_caller": ("SESSIOND_LIMITS_RATE_PER_CALLER", "8", CallLimits(CallLimit(1_500, 8))),
    "limits.max_calls_per_application": (
        "SESSIOND_LIMITS_MAX_CALLS_PER_APPLICATION",
        "9",
        CallLimits(application=CallLimit(9)),
    ),
    "limits.rate_per_application": (
        "SESSIOND_LIMITS_RATE_PER_APPLICATION",
        "10",
        CallLimits(application=CallLimit(0, 10)),
    ),
    "limits.burst": ("SESSIOND_LIMITS_BURST", "4s", CallLimits(burst=Millis(4_000))),
}
"""The same for the limits, with all of them as they are then. A reload puts them in force."""


NEEDED = {"server.tls.certificate": "other.crt", "server.tls.key": "other.key"}
"""What must be set if a key of `[server.tls]` is."""


def from_environment(variables: Mapping[str, str], path: Path | None = None) -> Config:
    """Return the configuration of a file in that environment."""
    return load_config(path, overrides_in(variables))


def write(folder: Path, text: str) -> Path:
    """Write a configuration file; return its path."""
    path = folder / "sessiond.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(("key", "variable", "text", "value"), [(key, *row) for key, row in VARIABLES.items()])
def test_every_key_has_a_variable(key: str, variable: str, text: str, value: object) -> None:
    """The variable of a key sets its value, which then has that variable as its origin; no other key changes."""
    assert variable_of(key) == variable
    needed = {variable_of(other): value for other, value in NEEDED.items() if key.startswith("server.tls.")}
    config, before = from_environment(needed | {variable: text}), from_environment(needed)
    assert before.restart_required(config) == [key]
    assert config.server_origins[key] == variable
    section, _, name = key.partition(".")
    assert getattr(config, f"log_{name}" if section == "log" else name.replace(".", "_")) == value
    assert {other for other, origin in config.server_origins.items() if origin != "default"} == {
        key,
        *(NEEDED if needed else ()),
    }


@pytest.mark.parametrize(("key", "variable", "text", "limits"), [(key, *row) for key, row in LIMITS.items()])
def test_every_limit_has_a_variable(key: str, variable: str, text: str, limits: CallLimits) -> None:
    """The variable of a limit sets it, and no other one."""
    assert variable_of(key) == variable
    config = from_environment({variable: text})
    assert config.limits == limits
    assert config.server_origins[key] == variable


def test_no_key_is_without_a_variable() -> None:
    """The tables above have every key outside of the sections of applications and single callers."""
    assert set(VARIABLES) | set(LIMITS) == set(load_config(None).server_origins)


def test_precedence(tmp_path: Path) -> None:
    """An option counts before a variable, a variable before the file, and the file before the default."""
    path = write(tmp_path, '[server]\nlisten = "unix:file"\ndata = "file"\nmax_calls = 50\n')
    environment = overrides_in({"SESSIOND_LISTEN": "unix:variable", "SESSIOND_DATA": "variable"})
    config = load_config(path, [*environment, Override("server.listen", "unix:option", "--listen")])
    assert (config.listen, str(config.data), config.max_calls) == ("unix:option", "variable", 50)
    assert {key: origin for key, origin in config.server_origins.items() if origin != "default"} == {
        "server.listen": "--listen",
        "server.data": "SESSIOND_DATA",
        "server.max_calls": f"{path}:4",
    }


def test_an_empty_variable_is_not_set() -> None:
    """An empty variable has no effect."""
    assert from_environment({"SESSIOND_DATA": "", "SESSIOND_MAX_CALLS": ""}) == load_config(None)


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("YES", True), ("on", True), ("false", False), ("No", False), ("0", False)]
)
def test_a_variable_can_turn_a_setting_on_and_off(tmp_path: Path, text: str, value: bool) -> None:
    """A variable of a true-or-false key replaces what the file says, in both directions."""
    path = write(tmp_path, f"[server]\nencrypt_data = {str(not value).lower()}\n")
    assert from_environment({"SESSIOND_ENCRYPT_DATA": text}, path).encrypt_data is value


BAD = {
    "SESSIOND_LISTEN": ("7443", 'must be "HOST:PORT" with a port from 0 to 65535, or "unix:PATH"'),
    "SESSIOND_ENCRYPT_DATA": ("maybe", "must be true or false"),
    "SESSIOND_MAX_CALLS": ("many", "must be a whole number"),
    "SESSIOND_CACHE_SESSIONS": ("9" * 9999, "must be a whole number"),
    "SESSIOND_MAX_SUBSCRIBERS": ("-1", "must be at least 1"),
    "SESSIOND_MAX_ANSWER_BYTES": ("1.5", "must be a whole number"),
    "SESSIOND_EVENT_RETENTION": ("30", 'must be a duration such as "30s", "15m", "1h30m" or "30d"'),
    "SESSIOND_LOG_FORMAT": ("jsn", 'must be one of "auto", "json", "console"; did you mean "json"?'),
    "SESSIOND_LOG_LEVEL": ("loud", 'must be one of "debug", "info", "warning", "error"'),
}


@pytest.mark.parametrize(("variable", "text", "remedy"), [(name, *row) for name, row in BAD.items()], ids=BAD)
def test_a_bad_variable_is_reported(variable: str, text: str, remedy: str) -> None:
    """A bad value is reported by the name of its variable, with the accepted values."""
    with pytest.raises(BadConfig) as refused:
        from_environment({variable: text})
    assert str(refused.value) == f"{variable}: {remedy}"


def test_problems_of_file_and_environment_are_reported_together(tmp_path: Path) -> None:
    """Every problem is reported at once, and a bad key in the file also if a variable replaces it."""
    path = write(tmp_path, '[server]\nmax_calls = "x"\n')
    with pytest.raises(BadConfig) as refused:
        from_environment({"SESSIOND_MAX_CALLS": "50", "SESSIOND_LOG_LEVEL": "loud"}, path)
    assert [line.rpartition(": ")[0] for line in str(refused.value).splitlines()] == [
        f"{path}:2: server.max_calls",
        "SESSIOND_LOG_LEVEL",
    ]


@pytest.mark.parametrize("other", ["server = 5\n", "[applications.shop]\npreset = 1\n"])
def test_a_variable_does_not_hide_a_bad_file(tmp_path: Path, other: str) -> None:
    """A file that cannot be used is reported whatever the environment has."""
    with pytest.raises(BadConfig, match=r":[12]: "):
        from_environment({"SESSIOND_LISTEN": "127.0.0.1:0"}, write(tmp_path, other))


def test_unknown_variables() -> None:
    """Every variable of our prefix that has no effect is found, with the one that it resembles if there is one."""
    environment = {
        "SESSIOND_LISTN": "x",
        "SESSIOND_MAXCALLS": "x",
        "SESSIOND_ENCRYPT": "true",
        "SESSIOND_DATA_DIR": "x",
        "SESSIOND_PORT": "7443",
        "SESSIOND_VERBOSE": "x",
        "SESSIOND_LISTEM": "",
        "SESSIOND_LISTEN": "x",
        "SESSIOND_CONFIG": "x",
        "SESSIOND_TARGET": "x",
        "SESSIOND_KEY_FILE": "x",
        "SESSIOND_COPY_FROM": "x",
        "SESSIOND_COPY_TO": "x",
        "LISTN": "x",
    }
    assert unknown_variables(environment) == {
        "SESSIOND_LISTN": "SESSIOND_LISTEN",
        "SESSIOND_MAXCALLS": "SESSIOND_MAX_CALLS",
        "SESSIOND_ENCRYPT": "SESSIOND_ENCRYPT_DATA",
        "SESSIOND_DATA_DIR": "SESSIOND_DATA",
        "SESSIOND_PORT": "",
        "SESSIOND_VERBOSE": "",
    }


def test_variables_of_kubernetes_are_not_unknown() -> None:
    """The variables that Kubernetes sets for services named `sessiond` or `sessiond-metrics` are not found."""
    port = "PORT_7443_TCP"
    for service in ("SESSIOND", "SESSIOND_METRICS"):
        environment = {
            f"{service}_SERVICE_HOST": "10.0.0.1",
            f"{service}_SERVICE_PORT": "7443",
            f"{service}_SERVICE_PORT_GRPC": "7443",
            f"{service}_PORT": "tcp://10.0.0.1:7443",
            f"{service}_{port}": "tcp://10.0.0.1:7443",
            f"{service}_{port}_PROTO": "tcp",
            f"{service}_{port}_PORT": "7443",
            f"{service}_{port}_ADDR": "10.0.0.1",
        }
        assert unknown_variables(environment) == {}
