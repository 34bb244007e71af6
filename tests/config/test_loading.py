"""The configuration: what it accepts, and that errors are reported with file, line and key."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, cast

import pytest

from sessiond.config import (
    BadConfig,
    Config,
    Override,
    ProxySettings,
    effective,
    format_duration,
    load_config,
    parse_duration,
)
from sessiond.config.lines import line_index, nearest_line
from sessiond.config.store_address import PostgresAddress
from sessiond.domain.call_limits import CallLimit, CallLimits
from sessiond.domain.guess_limits import GuessLimits
from sessiond.domain.policy import PRESETS, CookieRules, LimitRule
from sessiond.domain.signals import Reaction, SignalType
from sessiond.domain.values import Millis

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000


def write(folder: Path, text: str) -> Path:
    """Write a configuration file; return its path."""
    path = folder / "sessiond.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_without_a_file() -> None:
    """Without a file there is one application `default` with preset `owasp-low`, on loopback."""
    config = load_config(None)
    assert dict(config.policies) == {"default": PRESETS["owasp-low"]}
    assert config.listen.startswith("127.0.0.1:")
    assert not config.allow_remote_plaintext
    assert not config.allow_without_callers


def test_an_empty_file(tmp_path: Path) -> None:
    """An empty file has the same effect as no file."""
    assert replace(load_config(write(tmp_path, "")), files=()) == load_config(None)


def test_a_file(tmp_path: Path) -> None:
    """A key in the file replaces the preset's value, and all other values stay."""
    text = """
    [server]
    listen = "unix:/run/sessiond.sock"
    event_retention = "7d"
    cache_sessions = 5

    [applications.shop]
    preset = "owasp-high"
    idle_timeout = "2m30s"
    renewal_timeout = "none"
    refresh_extends_lifetime = true
    max_data_bytes = 0

    [applications.bank]
    preset = "nist-aal3"
    """
    config = load_config(write(tmp_path, text))
    assert (config.listen, config.event_retention, config.cache_sessions) == ("unix:/run/sessiond.sock", 7 * DAY, 5)
    assert set(config.policies) == {"shop", "bank"}
    shop = config.policies["shop"]
    assert (shop.idle_timeout, shop.renewal_timeout, shop.absolute_timeout) == (150_000, None, 4 * HOUR)
    assert (shop.refresh_extends_lifetime, shop.max_data_bytes) == (True, 0)
    assert config.policies["bank"] == PRESETS["nist-aal3"]


EVERY_KEY = """
[server]
encrypt_data = true
[networks]
operators = "GeoLite2-ASN.mmdb"
countries = "/var/lib/sessiond/GeoLite2-Country.mmdb"

[applications.shop]
preset = "owasp-high"
login_timeout = "5m"
remember_idle_timeout = "7d"
remember_absolute_timeout = "30d"
remember_level = 0
elevation_timeout = "3m"
csrf_overlap = "2m"
max_sessions = 3
on_limit = "ask"
ticket_timeout = "90s"
companion_timeout = "4m"
related_agents = [["Shop App on iOS", "Safari on iOS"]]
ipv4_prefix = 16
ipv6_prefix = 56
concurrent_use_window = "20s"
fold_window = "2h"

[applications.shop.reactions]
ip_change = "step-up"
token_replay = "revoke-subject"

[applications.shop.guessing]
alarm_after = 5
lock_after = 0
flood_after = 70
window = "30s"
lock_time = "1h"
deny_valid = true

[applications.shop.cookie]
name = "sid"
anonymous_name = "guest"
secure = false
same_site = "Strict"
path = "/shop"
clear_site_data = ["cookies", "*"]
partitioned = false
"""
OLDER_KEYS = """
preset = "owasp-high"
idle_timeout = "2m"
absolute_timeout = "1h"
renewal_timeout = "5m"
renewal_overlap = "10s"
roll_tolerance = "1s"
lost_answer_tolerance = "2s"
refresh_extends_lifetime = true
retention = "2d"
anonymous_retention = "3h"
answer_retention = "5m"
max_data_bytes = 5
"""


def test_every_key_of_a_policy(tmp_path: Path) -> None:
    """Every key reaches the policy, and a sub-table changes only the keys that it has."""
    config = load_config(write(tmp_path, EVERY_KEY))
    high = PRESETS["owasp-high"]
    assert config.policies["shop"] == replace(
        high,
        login_timeout=Millis(5 * MINUTE),
        remember_idle_timeout=Millis(7 * DAY),
        remember_absolute_timeout=Millis(30 * DAY),
        remember_level=0,
        elevation_timeout=Millis(3 * MINUTE),
        csrf_overlap=Millis(2 * MINUTE),
        max_sessions=3,
        on_limit=LimitRule.ASK,
        ticket_timeout=Millis(90_000),
        companion_timeout=Millis(4 * MINUTE),
        related_agents=(("Shop App on iOS", "Safari on iOS"),),
        ipv4_prefix=16,
        ipv6_prefix=56,
        concurrent_use_window=Millis(20_000),
        fold_window=Millis(2 * HOUR),
        reactions={
            **high.reactions,
            SignalType.IP_CHANGE: Reaction.STEP_UP,
            SignalType.TOKEN_REPLAY: Reaction.REVOKE_SUBJECT,
        },
        guessing=GuessLimits(5, 0, 70, Millis(30_000), Millis(HOUR), True),
        cookie=CookieRules("sid", "guest", False, "Strict", "/shop", ("cookies", "*")),
    )
    assert config.encrypt_data
    assert str(config.operators) == "GeoLite2-ASN.mmdb"
    assert str(config.countries) == "/var/lib/sessiond/GeoLite2-Country.mmdb"


def test_an_overlap_of_zero(tmp_path: Path) -> None:
    """The overlap of CSRF tokens is the one duration that may be zero, which switches it off."""
    config = load_config(write(tmp_path, '[applications.shop]\ncsrf_overlap = "0s"\n'))
    assert config.policies["shop"].csrf_overlap == 0
    with pytest.raises(BadConfig, match=r'csrf_overlap: must be a duration such as .*, or "0s"$'):
        load_config(write(tmp_path, "[applications.shop]\ncsrf_overlap = 0\n"))


def test_no_value_without_a_key(tmp_path: Path) -> None:
    """Every value of a policy can be set in the file."""
    text = EVERY_KEY.replace('preset = "owasp-high"', OLDER_KEYS)
    text = text.replace('ip_change = "step-up"', "\n".join(f'{kind} = "alert"' for kind in SignalType))
    path = write(tmp_path, text.replace('token_replay = "revoke-subject"', ""))
    origins = load_config(path).origins["shop"]
    assert [key for key, origin in origins.items() if not origin.startswith(f"{path}:")] == []


def test_nothing_is_set_without_a_file() -> None:
    """Without a file data is not encrypted, no network databases are read, and every value is the preset's."""
    config = load_config(None)
    assert (config.encrypt_data, config.operators, config.countries) == (False, None, None)
    assert set(config.origins["default"].values()) == {"preset owasp-low"}
    assert set(config.server_origins.values()) == {"default"}


def test_origins(tmp_path: Path) -> None:
    """The origin of each effective value is the line that sets it, or the preset that it comes from."""
    text = (
        "[server]\n"
        'data = "d"\n'
        "[applications.shop]\n"
        'idle_timeout = "10m"\n'
        'cookie = { name = "sid", secure = true }\n'
        'guessing.window = "2m"\n'
        "[applications.shop.reactions]\n"
        "# a comment = 1\n"
        '"ip_change" = "alert"\n'
    )
    path = write(tmp_path, text)
    config = load_config(path)
    origins = config.origins["shop"]
    assert set(origins) == set(effective(config.policies["shop"]))
    assert {key: origin for key, origin in origins.items() if origin != "preset owasp-low"} == {
        "idle_timeout": f"{path}:4",
        "cookie.name": f"{path}:5",
        "cookie.secure": f"{path}:5",
        "guessing.window": f"{path}:6",
        "reactions.ip_change": f"{path}:9",
    }
    assert config.server_origins["server.data"] == f"{path}:2"
    assert config.server_origins["server.listen"] == config.server_origins["networks.operators"] == "default"


PER_CALLER = {"sockets", "limits"}  # tests/access/test_caller_sockets.py, tests/access/test_limits.py
PER_APPLICATION = {"policies", "origins", "proxies"}
ABOUT_THE_FILE = {"server_origins", "files"}
OTHER_VALUES = {
    "server.listen": "unix:s",
    "server.socket_mode": 0o660,
    "server.transport": "native",
    "server.allow_remote_plaintext": True,
    "server.allow_without_callers": True,
    "server.data": Path("elsewhere"),
    "server.store": PostgresAddress("postgres://db/sessiond"),
    "server.keyring_file": Path("ring.key"),
    "server.keyring_command": ("/bin/unwrap", "-q"),
    "server.encrypt_data": True,
    "server.event_retention": Millis(1),
    "server.cache_sessions": 7,
    "server.subscriber_write_timeout": Millis(7),
    "server.max_subscribers": 7,
    "server.max_validation_streams": 7,
    "server.max_calls": 77,
    "server.workers": 3,
    "server.envoy": True,
    "server.http_listen": "unix:h",
    "server.metrics_listen": "unix:m",
    "server.drain_delay": Millis(7),
    "server.drain_timeout": Millis(8),
    "server.health_listen": "unix:c",
    "server.tracing": "env",
    "server.max_answer_bytes": 7_000_000,
    "server.tls.certificate": Path("s.crt"),
    "server.tls.key": Path("s.key"),
    "server.tls.client_ca": Path("ca.pem"),
    "log.format": "json",
    "log.level": "debug",
    "log.audit_file": Path("audit.log"),
    "networks.operators": Path("a.mmdb"),
    "networks.countries": Path("c.mmdb"),
}


def test_every_setting_of_the_server_needs_a_restart() -> None:
    """A changed value is reported by its key in the file, for each field except the policies and the limits."""
    config = load_config(None)
    names = {field.name for field in fields(Config)} - PER_APPLICATION - PER_CALLER - ABOUT_THE_FILE
    changed = {
        name: replace(config, **cast("Any", {name: value}))
        for key, value in OTHER_VALUES.items()
        for name in names
        if name == key.partition(".")[2].replace(".", "_") or name == key.replace(".", "_")
    }
    assert set(changed) == names
    reported = [config.restart_required(changed[name]) for name in sorted(names)]
    assert all(len(keys) == 1 for keys in reported)
    outside = {key for key in config.server_origins if not key.startswith("limits.")}
    assert {keys[0] for keys in reported} == set(OTHER_VALUES) == outside
    assert config.restart_required(config) == []


def test_limits_on_calls(tmp_path: Path) -> None:
    """The limits of the file reach the configuration; a caller has those of all for what its own section leaves out."""
    text = """[limits]
max_calls_per_caller = 40
rate_per_caller = 100
max_calls_per_application = 50
rate_per_application = 200
burst = "3s"
[limits.callers.shop-web]
rate = 500
[limits.callers.batch]
max_calls = 0
"""
    limits = load_config(write(tmp_path, text)).limits
    assert (limits.caller, limits.application) == (CallLimit(40, 100), CallLimit(50, 200))
    assert limits.burst == 3_000
    assert limits.of_caller("shop-web") == CallLimit(40, 500)
    assert limits.of_caller("batch") == CallLimit(0, 100)
    assert limits.of_caller("desk") == limits.caller


def test_changed_limits_need_no_restart(tmp_path: Path) -> None:
    """Other limits are not among the settings that need a restart; without a section there are the documented ones."""
    before, after = load_config(None), load_config(write(tmp_path, "[limits]\nrate_per_caller = 5\n"))
    assert before.limits == CallLimits(CallLimit(1_500, 0), CallLimit(0, 0), Millis(1_000))
    assert before.limits != after.limits
    assert before.restart_required(after) == []


TLS = '[server.tls]\ncertificate = "s.crt"\nkey = "s.key"\n'
TLS_PROBLEMS = {
    "a certificate alone": (
        '[server.tls]\ncertificate = "s.crt"\n',
        "2: server.tls.certificate: needs server.tls.key too: TLS needs a certificate and its key",
    ),
    "a key alone": (
        '[server]\n[server.tls]\nkey = "s.key"\n',
        "3: server.tls.key: needs server.tls.certificate too: TLS needs a certificate and its key",
    ),
    "authorities alone": (
        '[server]\ntls = { client_ca = "ca.pem" }\n',
        "2: server.tls.client_ca: needs server.tls.certificate too: TLS needs a certificate and its key",
    ),
    "the native transport": (
        '[server]\ntransport = "native"\n' + TLS,
        '2: server.transport: "native" has no TLS; choose "grpcio", or remove server.tls and put a proxy that adds TLS '
        "in front, on this machine",
    ),
    "a Unix socket": (
        '[server]\nlisten = "unix:s.sock"\n' + TLS,
        "4: server.tls.certificate: unix:s.sock is a Unix socket, which needs no TLS; listen on HOST:PORT, or remove "
        "server.tls",
    ),
    "a misspelt key": (
        TLS + 'client_cas = "ca.pem"\n',
        "4: server.tls.client_cas: no such key; did you mean 'client_ca'?",
    ),
    "an empty path": (
        '[server.tls]\nkey = ""\n',
        "2: server.tls.key: must be the path of a file or folder, and not empty",
    ),
    "no table": ("[server]\ntls = true\n", "2: server.tls: must be a table"),
}


@pytest.mark.parametrize("kind", TLS_PROBLEMS)
def test_tls_that_cannot_be(tmp_path: Path, kind: str) -> None:
    """Settings of TLS that do not fit together are reported with line, key and remedy."""
    text, expected = TLS_PROBLEMS[kind]
    path = write(tmp_path, text)
    with pytest.raises(BadConfig) as error:
        load_config(path)
    assert str(error.value) == f"{path}:{expected}"


def test_tls_from_several_places(tmp_path: Path) -> None:
    """A file, a variable and an option may each name a part of the files, and a problem names where it comes from."""
    path = write(tmp_path, '[server.tls]\ncertificate = "file.crt"\n')
    key = Override("server.tls.key", "s.key", "SESSIOND_TLS_KEY")
    config = load_config(path, [key, Override("server.tls.client_ca", "ca.pem", "--tls-client-ca")])
    assert (config.tls_certificate, config.tls_key, config.tls_client_ca) == (
        Path("file.crt"),
        Path("s.key"),
        Path("ca.pem"),
    )
    with pytest.raises(BadConfig, match=r"^SESSIOND_TLS_KEY: needs server\.tls\.certificate too"):
        load_config(None, [key])


def test_a_configuration_names_its_files(tmp_path: Path) -> None:
    """The configuration names the file that was read, if there was one."""
    path = write(tmp_path, "")
    assert load_config(path).files == (path,)
    assert load_config(None).files == ()


def test_effective_values() -> None:
    """The values of a policy are named by their paths in the file."""
    values = effective(PRESETS["owasp-low"])
    assert (values["idle_timeout"], values["cookie.name"], values["guessing.window"]) == (30 * MINUTE, "id", MINUTE)
    assert values["reactions.token_replay"] is Reaction.REVOKE_SESSION


LINES = r'''a = """
b = 1 # "
\""" still"""
c = [ # ]
  'x]', # }
  "y\"=", { in = 1 },
]
d."e.f" . g = { h = [1, 2], i = { 'j' = 1.5 } }

[ k . l.'m n' ] # [no]
o = 1979-05-27 07:32:00
[[p]]
q = QQQ
[r]QQQ
[k]
s = 'C:\'
'''.replace("QQQ", "'''")


def test_lines_of_everything_toml_allows() -> None:
    """Lines are right after long strings, arrays over lines, inline tables, quoted keys and tables of tables."""
    tomllib.loads(LINES)
    lines = line_index(LINES)
    assert (lines["a",], lines["c",], lines["c", "0"], lines["c", "1"], lines["c", "2", "in"]) == (1, 4, 5, 6, 6)
    assert lines["d", "e.f", "g", "h", "1"] == lines["d", "e.f", "g", "i", "j"] == lines["d",] == 8
    assert (lines["k", "l", "m n"], lines["k", "l", "m n", "o"], lines["k", "l"]) == (10, 11, 10)
    assert (lines["p",], lines["p", "0", "q"], lines["k",], lines["k", "s"]) == (12, 13, 15, 16)
    assert ("b",) not in lines
    assert ("r",) not in lines
    assert nearest_line(lines, ("k", "l", "nothing", "like", "that")) == 10
    assert nearest_line(lines, ("nothing",)) == 1


@pytest.mark.parametrize("text", ["250ms", "30s", "1h30m", "30d", "1d1h1m1s1ms", "none"])
def test_durations_are_written_as_they_are_read(text: str) -> None:
    """A duration is formatted in the form that the file accepts."""
    assert format_duration(None if text == "none" else parse_duration(text)) == text


def documented() -> list[tuple[str, str, str]]:
    """Return each documented default of an application: the preset, the path of the key, and the value as TOML."""
    text = (Path(__file__).parents[2] / "docs" / "reference" / "configuration.md").read_text(encoding="utf-8")
    found, prefix, columns = [], None, [[""]]
    for line in text.splitlines():
        if line.startswith("## "):
            section = re.fullmatch(r"## \[applications\.NAME(?:\.(\w+))?\]", line)
            prefix = None if section is None else f"{section[1]}." if section[1] else ""
        elif prefix is not None and line.startswith("| key"):
            titles = line.strip("| ").split(" | ")
            columns = [list(PRESETS) if title == "default" else re.findall(r"`([\w-]+)`", title) for title in titles]
        elif prefix is not None and line.startswith("| `"):
            key, *cells = (cell.strip("`") for cell in line.strip("| ").split(" | "))
            found += [
                (preset, prefix + key, cell)
                for cell, presets in zip(cells, columns[1:], strict=True)
                for preset in presets
            ]
    return found


def defaults(preset: str) -> dict[str, object]:
    """The values of an application that sets nothing but its preset, by the path of the key."""
    proxy = ProxySettings()
    own = {f"proxy.{one.name}": getattr(proxy, one.name) for one in fields(ProxySettings)}
    return {**effective(PRESETS[preset]), **own}


def test_the_documentation_has_every_key() -> None:
    """Each key of an application is documented, once, for every preset."""
    expected = {(preset, key) for preset in PRESETS for key in defaults(preset) if key != "preset"}
    found = [(preset, key) for preset, key, _ in documented()]
    assert set(found) == expected
    assert len(found) == len(expected)


@pytest.mark.parametrize(("preset", "key", "cell"), documented())
def test_the_documented_defaults_are_true(preset: str, key: str, cell: str) -> None:
    """Each default in the documentation is the preset's value."""
    documented_value, value = tomllib.loads(f"value = {cell}")["value"], defaults(preset)[key]
    if key.endswith(("_timeout", "_overlap", "_tolerance", "_window", "_time", ".window", "retention")):
        documented_value = None if documented_value == "none" else parse_duration(documented_value)
    assert value == (tuple(documented_value) if isinstance(documented_value, list) else documented_value)
    assert isinstance(value, bool) is isinstance(documented_value, bool)


EXAMPLE = Path(__file__).parents[2] / "deploy" / "sessiond.toml"


def test_the_example_loads() -> None:
    """The example configuration for operators loads."""
    assert set(load_config(EXAMPLE).policies) == {"shop", "payments"}


def test_the_example_loads_with_all_its_settings(tmp_path: Path) -> None:
    """The settings that the example has as comments are accepted."""
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    text = "\n".join(re.sub(r"^#(?=[\[a-z])", "", line) for line in lines)
    config = load_config(write(tmp_path, text))
    assert config.encrypt_data
    assert config.countries is not None
    assert config.policies["shop"].remember_idle_timeout == 7 * DAY
    assert config.policies["payments"].on_limit is LimitRule.ASK
    assert config.policies["payments"].cookie.same_site == "Strict"
    assert config.policies["payments"].anonymous_retention == 12 * HOUR
    embedded = config.policies["shop"].cookie
    assert (embedded.same_site, embedded.partitioned) == ("None", True)


@pytest.mark.parametrize(
    ("text", "millis"),
    [
        ("1ms", 1),
        ("30s", 30_000),
        ("15m", 15 * MINUTE),
        ("1h30m", 90 * MINUTE),
        ("30d", 30 * DAY),
        ("3650d", 3650 * DAY),
    ],
)
def test_durations(text: str, millis: int) -> None:
    """A duration is one or more numbers, each with a unit."""
    assert parse_duration(text) == millis


@pytest.mark.parametrize(
    "value",
    [
        "",
        "0s",
        "0ms",
        "-5m",
        "+5m",
        "5",
        "5 m",
        "m",
        "1.5h",
        "5M",
        "1w",
        "1e3s",
        "3651d",
        "9" * 30 + "s",
        "9" * 9999 + "s",
        "nan",
        "none",
        5,
        5.0,
        True,
        None,
        [],
    ],
)
def test_bad_durations(value: object) -> None:
    """Zero, negative durations, durations over ten years, and values of any other form are rejected."""
    with pytest.raises(ValueError, match=r"."):
        parse_duration(value)


BAD = {
    "not TOML": ("[server]\nlisten = \n", 2, "invalid TOML: "),
    "truncated TOML": ("[server]\nlisten = 'x:1'\n\n[applications", 4, "invalid TOML: "),
    "a key twice": ("[server]\nlisten = 'x:1'\nlisten = 'y:1'\n", 3, "invalid TOML: "),
    "an unknown section": (
        "[server]\n\n[sever]\nlisten = 'x:1'\n",
        3,
        "sever: no such section; did you mean 'server'?",
    ),
    "an unknown key": (
        "[server]\nlisten = 'x:1'\nport = 7\n",
        3,
        "server.port: no such key; see docs/reference/configuration.md",
    ),
    "a key of the wrong type": ("[server]\nlisten = 7\n", 2, "server.listen:"),
    "an address without port": ("[server]\nlisten = '127.0.0.1'\n", 2, "server.listen: must be"),
    "a port out of range": ("[server]\nlisten = '127.0.0.1:99999'\n", 2, "server.listen: must be"),
    "a socket without path": ("[server]\nlisten = 'unix:'\n", 2, "server.listen: must be"),
    "a negative duration": (
        '[applications.shop]\nidle_timeout = "-5m"\n',
        2,
        "applications.shop.idle_timeout: must be",
    ),
    "an absurd duration": ('[server]\n\nevent_retention = "99999d"\n', 3, "server.event_retention: must be"),
    "a duration without a unit": ("[applications.shop]\nretention = 30\n", 2, "applications.shop.retention: must be"),
    "no cache": ("[server]\ncache_sessions = 0\n", 2, "server.cache_sessions: must be"),
    "a number as text": ('[server]\ncache_sessions = "5"\n', 2, "server.cache_sessions: must be"),
    "negative data": ("[applications.shop]\nmax_data_bytes = -1\n", 2, "applications.shop.max_data_bytes: must be"),
    "too much data": (
        "[applications.shop]\nmax_data_bytes = 1048577\n",
        2,
        "applications.shop.max_data_bytes: must be",
    ),
    "an unknown preset": (
        '[applications.shop]\npreset = "owasp"\n',
        2,
        'applications.shop.preset: must be one of "owasp-low", ',
    ),
    "an unknown log level": ('[log]\nlevel = "loud"\n', 2, 'log.level: must be one of "debug", '),
    "no applications": ("applications = {}\n", 1, "applications: must have at least 1 entry"),
    "a bad name": (
        '[applications."a b"]\npreset = "owasp-low"\n',
        2,
        "applications.a b.preset: the application's name",
    ),
    "no timeout at all": (
        '[applications.shop]\nidle_timeout = "none"\nabsolute_timeout = "none"\n',
        3,
        'applications.shop.absolute_timeout: must not be "none" if idle_timeout is "none"',
    ),
    "idle over absolute": (
        '[applications.shop]\nabsolute_timeout = "2h"\nidle_timeout = "3h"\n',
        3,
        "applications.shop.idle_timeout: must not be longer than absolute_timeout",
    ),
    "overlap over renewal": (
        '[applications.shop]\nrenewal_timeout = "1m"\nrenewal_overlap = "2m"\n',
        3,
        "applications.shop.renewal_overlap: must be shorter than renewal_timeout",
    ),
    "overlap as long as renewal": (
        '[applications.shop]\nrenewal_timeout = "60s"\n',
        2,
        "applications.shop.renewal_overlap: must be shorter than renewal_timeout",
    ),
    "a command as one text": (
        '[server]\nkeyring_command = "/bin/unwrap \'-q"\n',
        2,
        "server.keyring_command: must be the command and its arguments, a list of text",
    ),
    "an empty command": (
        "[server]\nkeyring_command = []\n",
        2,
        "server.keyring_command: must be the command and its arguments, a list of text",
    ),
    "a command that is not text": (
        "[server]\nkeyring_command = [1]\n",
        2,
        "server.keyring_command: must be the command and its arguments, a list of text",
    ),
    "a relative command": (
        '[server]\nkeyring_command = ["unwrap"]\n',
        2,
        'server.keyring_command: must begin with an absolute path, not "unwrap"',
    ),
    "two sources of the key ring": (
        '[server]\nkeyring_file = "ring.key"\nkeyring_command = ["/bin/unwrap"]\n',
        3,
        "server.keyring_command: server.keyring_file is set too; keep one of them",
    ),
    "encryption as text": ('[server]\nencrypt_data = "yes"\n', 2, "server.encrypt_data: must be true or false"),
    "an empty file name": ('[networks]\noperators = ""\n', 2, "networks.operators: must be the path"),
    "a file as a number": ("[networks]\n\ncountries = 5\n", 3, "networks.countries: must be the path"),
    "an unknown network file": (
        '[networks]\ncities = "x"\n',
        2,
        "networks.cities: no such key; did you mean 'countries'?",
    ),
    "a negative rate": ("[limits]\nrate_per_caller = -1\n", 2, "limits.rate_per_caller: must be at least 0"),
    "a rate as text": ('[limits]\nrate_per_caller = "5/s"\n', 2, "limits.rate_per_caller: must be a whole number"),
    "an absurd rate": ("[limits]\nrate_per_application = 1000001\n", 2, "limits.rate_per_application: must be at most"),
    "too many calls": ("[limits]\nmax_calls_per_caller = 100001\n", 2, "limits.max_calls_per_caller: must be at most"),
    "no burst": ('[limits]\nburst = "0s"\n', 2, "limits.burst: must be"),
    "an absurd burst": ('[limits]\nburst = "2m"\n', 2, "limits.burst: must be at most 1m"),
    "a bad name of a caller": (
        "[limits.callers.Shop]\nrate = 5\n",
        1,
        "limits.callers.Shop: must be the name of a caller: 1 to 64 of a-z, ",
    ),
    "an unknown key of a caller": (
        "[limits.callers.shop]\nrates = 5\n",
        2,
        "limits.callers.shop.rates: no such key; did you mean 'rate'?",
    ),
    "a caller that is no table": ("[limits.callers]\nshop = 5\n", 2, "limits.callers.shop: must be a table"),
    "an application that is no table": ("[applications]\nshop = 5\n", 2, "applications.shop: must be a table"),
    "reactions that are no table": (
        '[applications.shop]\nreactions = "x"\n',
        2,
        "applications.shop.reactions: must be a table",
    ),
    "guessing that is no table": (
        "[applications.shop]\nguessing = 5\n",
        2,
        "applications.shop.guessing: must be a table",
    ),
    "a cookie that is no table": (
        '[applications.shop]\ncookie = "id"\n',
        2,
        "applications.shop.cookie: must be a table",
    ),
    "an unknown guessing key": (
        "[applications.shop.guessing]\nalarm = 5\n",
        2,
        "applications.shop.guessing.alarm: no such key; did you mean 'alarm_after'?",
    ),
    "an unknown cookie key": (
        '[applications.shop]\n\n[applications.shop.cookie]\ndomain = "x"\n',
        4,
        "applications.shop.cookie.domain: no such key",
    ),
    "a key inside an inline table": (
        '[applications.shop]\nidle_timeout = "5m"\ncookie = { name = "x", path = "y" }\n',
        3,
        "applications.shop.cookie.path: must begin",
    ),
    "an element of a long list": (
        '[applications.shop.cookie]\nclear_site_data = [\n  "cache",\n  "cakes",\n]\n',
        4,
        "applications.shop.cookie.clear_site_data.1:",
    ),
    "an unknown signal": (
        '[applications.shop.reactions]\nip_change = "alert"\ntoken_reply = "alert"\n',
        3,
        "applications.shop.reactions.token_reply: no such key; did you mean 'token_replay'?",
    ),
    "an unknown reaction": (
        '[applications.shop.reactions]\ntoken_replay = "panic"\n',
        2,
        'applications.shop.reactions.token_replay: must be one of "ignore", "alert", "step-up", ',
    ),
    "an unknown limit rule": (
        '[applications.shop]\non_limit = "evict"\n',
        2,
        'applications.shop.on_limit: must be one of "reject", "evict-oldest", "evict-least-recent", "ask"',
    ),
    "a cookie with its prefix": (
        '[applications.shop.cookie]\nname = "__Host-id"\n',
        2,
        "applications.shop.cookie.name: must not begin with __Host-, __Secure-, __Http-, __Host-Http-: the server",
    ),
    "a cookie for all sites over plain HTTP": (
        '[applications.shop.cookie]\nsecure = false\nsame_site = "None"\n',
        3,
        'applications.shop.cookie.same_site: must not be "None" if cookie.secure is false',
    ),
    "a partitioned cookie over plain HTTP": (
        "[applications.shop.cookie]\npartitioned = true\nsecure = false\n",
        2,
        "applications.shop.cookie.partitioned: must be false if cookie.secure is false",
    ),
    "remembered without idle timeout": (
        '[applications.shop]\nremember_absolute_timeout = "30d"\n',
        2,
        "applications.shop.remember_idle_timeout: must be set if",
    ),
    "remembered without absolute timeout": (
        '[applications.shop]\nremember_idle_timeout = "7d"\n',
        2,
        "applications.shop.remember_absolute_timeout: must be set if",
    ),
    "remembered absolute under idle": (
        '[applications.shop]\nremember_idle_timeout = "7d"\nremember_absolute_timeout = "6d"\n',
        3,
        "applications.shop.remember_absolute_timeout: must not be shorter than remember_idle_timeout",
    ),
    "remembered idle under ordinary": (
        '[applications.shop]\nremember_idle_timeout = "29m"\nremember_absolute_timeout = "6d"\n',
        2,
        "applications.shop.remember_idle_timeout: must not be shorter than idle_timeout",
    ),
    "remembered absolute under ordinary": (
        '[applications.shop]\nremember_idle_timeout = "1h"\nremember_absolute_timeout = "7h"\n',
        3,
        "applications.shop.remember_absolute_timeout: must not be shorter than absolute_timeout",
    ),
    "ticket too long": (
        '[applications.shop]\nticket_timeout = "61m"\n',
        2,
        'applications.shop.ticket_timeout: must be at most "1h"',
    ),
    "login over absolute": (
        '[applications.shop]\nlogin_timeout = "9h"\n',
        2,
        "applications.shop.login_timeout: must not be longer than absolute_timeout",
    ),
    "the preset's login over absolute": (
        '[applications.shop]\nidle_timeout = "1m"\nrenewal_timeout = "none"\nabsolute_timeout = "5m"\n',
        4,
        "applications.shop.login_timeout: must not be longer than absolute_timeout",
    ),
    "alarm over lock": (
        "[applications.shop.guessing]\nlock_after = 10\nalarm_after = 11\n",
        3,
        "applications.shop.guessing.alarm_after: must not be more than lock_after",
    ),
    "the default alarm over lock": (
        "[applications.shop.guessing]\n\nlock_after = 10\n",
        3,
        "applications.shop.guessing.alarm_after: must not be more than lock_after",
    ),
}

_NO_DURATION = ('"5"', '"none"', "300", "true")
_NO_TIMEOUT = ('"never"', '"0s"', "300", "false")
_NO_COOKIE_NAME = (
    *('""', '"a b"', '"a;b"', '"a=b"', '"a,b"', '"é"', '"a\\n"', f'"{"x" * 65}"', "5"),
    *('"__secure-id"', '"__HOST-id"', '"__Http-id"', '"__http-"', '"__Host-Http-id"', '"__hOsT-hTtP-id"'),
)
_NO_REACTION = ('"revoke"', '"Alert"', "1", "false", "[]", "{}", '["alert"]')
BAD_VALUES = {
    "anonymous_retention": _NO_DURATION,
    "answer_retention": _NO_DURATION,
    "login_timeout": _NO_DURATION,
    "remember_idle_timeout": _NO_TIMEOUT,
    "remember_absolute_timeout": _NO_TIMEOUT,
    "remember_level": ("-1", "4", "1.0", '"1"', "true"),
    "elevation_timeout": _NO_DURATION,
    "csrf_overlap": (*_NO_DURATION, '"0"', '"0m"', "0", '"-1s"'),
    "max_sessions": ("-1", "10001", "1.5", '"3"', "true"),
    "on_limit": ('"REJECT"', "0", "[]"),
    "ticket_timeout": _NO_DURATION,
    "companion_timeout": _NO_DURATION,
    "ipv4_prefix": ("7", "33", '"24"', "24.0"),
    "ipv6_prefix": ("15", "129", '"64"', "true"),
    "concurrent_use_window": _NO_DURATION,
    "fold_window": _NO_DURATION,
    **{f"reactions.{kind}": _NO_REACTION for kind in SignalType},
    "guessing.alarm_after": ("0", "-1", '"5"', "1.0"),
    "guessing.lock_after": ("-1", '"5"', "false"),
    "guessing.flood_after": ("0", '"5"'),
    "guessing.window": _NO_DURATION,
    "guessing.lock_time": _NO_DURATION,
    "guessing.deny_valid": ("1", '"true"'),
    "cookie.name": _NO_COOKIE_NAME,
    "cookie.anonymous_name": _NO_COOKIE_NAME,
    "cookie.secure": ("1", '"yes"'),
    "cookie.same_site": ('"none"', '"lax"', '""', "true"),
    "cookie.partitioned": ("1", '"true"'),
    "cookie.path": ('""', '"shop"', '"/a;b"', '"/a,b"', '"/é"', '"/a\\n"', f'"/{"x" * 1024}"', "5"),
    "cookie.clear_site_data": ('"cookies"', "true"),
}


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, values in BAD_VALUES.items() for value in values], ids=str
)
def test_a_bad_value_is_refused(tmp_path: Path, key: str, value: str) -> None:
    """A value of the wrong type or out of range is reported with its line, its key and the accepted values."""
    path = write(tmp_path, f"[applications.shop]\n\n{key} = {value}\n")
    with pytest.raises(BadConfig) as refused:
        load_config(path)
    (problem,) = str(refused.value).splitlines()
    where, remedy = f"{path}:3: applications.shop.{key}: ", problem.partition(f"{key}: ")[2]
    assert problem.startswith(where)
    assert remedy.startswith("must ")


EDGES = {
    "remember_level": ("0", "3"),
    "max_sessions": ("0", "10000"),
    "ipv4_prefix": ("8", "32"),
    "ipv6_prefix": ("16", "128"),
    "ticket_timeout": ('"1h"',),
    "login_timeout": ('"8h"',),
    "guessing.alarm_after": ("1", "100"),
    "guessing.lock_after": ("0", "20"),
    "anonymous_retention": ('"1ms"', '"31d"'),
    "answer_retention": ('"1ms"', '"2d"'),
    "cookie.same_site": ('"Strict"', '"Lax"', '"None"'),
    "cookie.partitioned": ("true", "false"),
    "cookie.name": (f'"{"x" * 64}"', '"__id"', '"__Host"', '"Http-id"', '"a!#$%&\'*+-.^_`|~9"'),
    "cookie.path": ('"/"', '"/a b/~:<"', f'"/{"x" * 1023}"'),
    "cookie.clear_site_data": ("[]", '["executionContexts"]'),
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in EDGES.items() for value in values], ids=str)
def test_the_edges_are_in_range(tmp_path: Path, key: str, value: str) -> None:
    """The first and the last value of a range are accepted."""
    assert load_config(write(tmp_path, f"[applications.shop]\n{key} = {value}\n")).policies


def test_every_contradiction_of_a_cookie_is_reported(tmp_path: Path) -> None:
    """Two contradictions in a cookie are reported on two lines, each with the line of its own key."""
    path = write(
        tmp_path,
        '[applications.a]\ncookie.secure = false\ncookie.same_site = "None"\ncookie.partitioned = true\n',
    )
    with pytest.raises(BadConfig) as refused:
        load_config(path)
    assert [line.split(": ")[:2] for line in str(refused.value).splitlines()] == [
        [f"{path}:3", "applications.a.cookie.same_site"],
        [f"{path}:4", "applications.a.cookie.partitioned"],
    ]


def test_an_embedded_application(tmp_path: Path) -> None:
    """`same_site = "None"` and `partitioned` can be set together or separately."""
    for text, expected in (
        ('cookie = { same_site = "None" }', CookieRules(same_site="None")),
        ("cookie = { partitioned = true }", CookieRules(partitioned=True)),
        ('cookie = { same_site = "None", partitioned = true }', CookieRules(same_site="None", partitioned=True)),
    ):
        assert load_config(write(tmp_path, f"[applications.a]\n{text}\n")).policies["a"].cookie == expected


def test_a_file_has_at_most_500_applications(tmp_path: Path) -> None:
    """With 500 applications a file can be used; with more, the error has the line of the first one too many."""
    text = "".join(f"[applications.a{number}]\n" for number in range(500))
    assert len(load_config(write(tmp_path, text)).policies) == 500
    path = write(tmp_path, f"{text}[applications.b]\n[applications.c]\n")
    with pytest.raises(BadConfig) as found:
        load_config(path)
    assert str(found.value) == f"{path}:501: applications.b: a file has at most 500 applications, and this one has 502"


def test_anonymous_history_may_outlast_that_of_subjects(tmp_path: Path) -> None:
    """`anonymous_retention` may be longer than `retention`."""
    path = write(tmp_path, '[applications.a]\nretention = "1h"\nanonymous_retention = "2d"\n')
    policy = load_config(path).policies["a"]
    assert (policy.retention, policy.anonymous_retention) == (HOUR, 2 * DAY)


def test_remembering_if_ordinary_sessions_have_no_timeout(tmp_path: Path) -> None:
    """A remembered session may have an idle timeout even if an ordinary one has none."""
    text = '[applications.a]\npreset = "nist-aal1"\nremember_idle_timeout = "7d"\nremember_absolute_timeout = "30d"\n'
    assert load_config(write(tmp_path, text)).policies["a"].remember_idle_timeout == 7 * DAY


def test_any_alarm_if_nobody_is_locked_out(tmp_path: Path) -> None:
    """Without locks `alarm_after` may have any value."""
    text = "[applications.shop.guessing]\nalarm_after = 5000\nlock_after = 0\n"
    assert load_config(write(tmp_path, text)).policies["shop"].guessing.alarm_after == 5000


@pytest.mark.parametrize(("text", "line", "problem"), BAD.values(), ids=BAD.keys())
def test_a_bad_file_is_refused(tmp_path: Path, text: str, line: int, problem: str) -> None:
    """A malformed configuration is reported with file, line, key and remedy."""
    path = write(tmp_path, text)
    with pytest.raises(BadConfig) as refused:
        load_config(path)
    first = str(refused.value).splitlines()[0]
    assert first.startswith(f"{path}:{line}: {problem}")


def test_every_problem_is_reported(tmp_path: Path) -> None:
    """Each problem of a file is reported on a line of its own."""
    path = write(tmp_path, '[server]\nport = 7\n[applications.shop]\nidle_timeout = "x"\nretention = "0s"\n')
    with pytest.raises(BadConfig) as refused:
        load_config(path)
    lines = str(refused.value).splitlines()
    assert [line.split(": ")[0] for line in lines] == [f"{path}:{number}" for number in (2, 4, 5)]


def test_problems_are_in_the_order_of_the_file(tmp_path: Path) -> None:
    """The problems of a file are in the order of its lines; those of variables and options follow."""
    path = write(tmp_path, '[applications.shop]\nidle_timeout = "x"\n[server]\nport = 7\nmax_calls = 1\n')
    with pytest.raises(BadConfig) as refused:
        load_config(path, [Override("log.level", "loud", "--log-level")])
    lines = str(refused.value).splitlines()
    assert [line.split(": ")[0] for line in lines] == [f"{path}:2", f"{path}:4", f"{path}:5", "--log-level"]


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """A file that is missing, is a folder, or is not text is reported by name, with a remedy."""
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for path, remedy in (
        (tmp_path / "nowhere", "no such file; create it, or name another one"),
        (tmp_path, "is a folder; name the file in it"),
        (tmp_path / "binary", "is not UTF-8 text; save it in that encoding"),
    ):
        with pytest.raises(BadConfig) as refused:
            load_config(path)
        assert str(refused.value) == f"{path}: {remedy}"


MEANT = {
    "a letter": ("[applications.shop]\nidel_timeout = 1\n", "applications.shop.idel_timeout", "idle_timeout"),
    "a hyphen": ("[server]\nmax-calls = 1\n", "server.max-calls", "max_calls"),
    "capitals": ("[log]\nLevel = 1\n", "log.Level", "level"),
    "a section": ("[application.shop]\n", "application", "applications"),
    "another section": ("[server]\nidle_timeout = 1\n", "server.idle_timeout", "applications.NAME.idle_timeout"),
    "no section": ("listen = 1\n", "listen", "server.listen"),
    "a signal": (
        '[applications.shop]\nreactions.ip_chnge = "alert"\n',
        "applications.shop.reactions.ip_chnge",
        "ip_change",
    ),
    "in a table": ("[applications.shop.cookie]\nsamesite = 1\n", "applications.shop.cookie.samesite", "same_site"),
    "a bare name": ("[server]\nsubscribers = 1\n", "server.subscribers", "max_subscribers"),
}


@pytest.mark.parametrize(("text", "key", "meant"), MEANT.values(), ids=MEANT)
def test_an_unknown_key_names_the_one_that_was_meant(tmp_path: Path, text: str, key: str, meant: str) -> None:
    """An unknown key is reported with the key that it resembles, or with the section that the key belongs to."""
    with pytest.raises(BadConfig) as refused:
        load_config(write(tmp_path, text))
    (problem,) = str(refused.value).splitlines()
    assert re.search(rf": {re.escape(key)}: no such (key|section); did you mean '{re.escape(meant)}'\?$", problem)


@pytest.mark.parametrize("key", ["zzz", "x" * 100_000, "é"])
def test_an_unknown_key_that_resembles_none(tmp_path: Path, key: str) -> None:
    """A key that resembles no other is reported with the page that lists all keys."""
    with pytest.raises(BadConfig, match=r": no such key; see docs/reference/configuration\.md$"):
        load_config(write(tmp_path, f'[server]\n"{key}" = 1\n'))


def test_an_unknown_choice_names_the_one_that_was_meant(tmp_path: Path) -> None:
    """A value that is none of the choices is reported with all of them and the one that it resembles."""
    text = '[applications.shop]\npreset = "owasp_hihg"\n[applications.shop.reactions]\ntoken_replay = "alrt"\n'
    with pytest.raises(BadConfig) as refused:
        load_config(write(tmp_path, text))
    preset, reaction = str(refused.value).splitlines()
    assert preset.endswith('"nist-aal3"; did you mean "owasp-high"?')
    assert reaction.endswith('; did you mean "alert"?')


def test_an_unknown_signal_that_resembles_none(tmp_path: Path) -> None:
    """A key of `reactions` that resembles no signal is reported with all signals."""
    with pytest.raises(BadConfig, match=r"reactions\.zzz: no such key; the keys are token_replay, .*, reported$"):
        load_config(write(tmp_path, '[applications.shop]\nreactions.zzz = "alert"\n'))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a = " + "[" * 5_000, "nested too deeply"),
        ("a = " + "{b=" * 5_000, "nested too deeply"),
        ("[server]\nmax_calls = " + "1" * 5_000, "out of range"),
    ],
)
def test_what_the_parser_cannot_stand(tmp_path: Path, text: str, problem: str) -> None:
    """Nesting of thousands of levels and numbers of thousands of digits are refused with the file's name."""
    path = write(tmp_path, text)
    with pytest.raises(BadConfig, match=problem) as refused:
        load_config(path)
    assert str(refused.value).startswith(f"{path}: ")
