"""The configuration: what it takes, and that a bad one is refused with file, line and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from sessiond.config import BadConfig, load_config, parse_duration
from sessiond.domain.policy import PRESETS

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000


def write(folder: Path, text: str) -> Path:
    """A configuration file."""
    path = folder / "sessiond.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_without_a_file() -> None:
    """Without a file there is one application `default` with preset `owasp-low`, on loopback."""
    config = load_config(None)
    assert dict(config.policies) == {"default": PRESETS["owasp-low"]}
    assert config.listen.startswith("127.0.0.1:")
    assert not config.allow_remote_plaintext


def test_an_empty_file(tmp_path: Path) -> None:
    """An empty file is the same as none."""
    assert load_config(write(tmp_path, "")) == load_config(None)


def test_a_file(tmp_path: Path) -> None:
    """What a file sets stands over the preset, and nothing else changes."""
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
    """A duration is a number with a unit, or several."""
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
    """Nothing, less than nothing, more than ten years, and whatever is no duration is refused."""
    with pytest.raises(ValueError, match=r"."):
        parse_duration(value)


BAD = {
    "no TOML": ("[server]\nlisten = \n", 2, "is not TOML"),
    "TOML that breaks off": ("[server]\nlisten = 'x'\n\n[applications", 4, "is not TOML"),
    "a key twice": ("[server]\nlisten = 'x'\nlisten = 'y'\n", 3, "is not TOML"),
    "an unknown section": ("[server]\n\n[sever]\nlisten = 'x'\n", 3, "sever: no such key"),
    "an unknown key": ("[server]\nlisten = 'x'\nport = 7\n", 3, "server.port: no such key"),
    "a key of the wrong kind": ("[server]\nlisten = 7\n", 2, "server.listen:"),
    "a negative duration": (
        '[applications.shop]\nidle_timeout = "-5m"\n',
        2,
        "applications.shop.idle_timeout: must be",
    ),
    "an absurd duration": ('[server]\n\nevent_retention = "99999d"\n', 3, "server.event_retention: must be"),
    "a duration without a unit": ("[applications.shop]\nretention = 30\n", 2, "applications.shop.retention: must be"),
    "no cache": ("[server]\ncache_sessions = 0\n", 2, "server.cache_sessions:"),
    "a number as text": ('[server]\ncache_sessions = "5"\n', 2, "server.cache_sessions:"),
    "negative data": ("[applications.shop]\nmax_data_bytes = -1\n", 2, "applications.shop.max_data_bytes:"),
    "too much data": ("[applications.shop]\nmax_data_bytes = 1048577\n", 2, "applications.shop.max_data_bytes:"),
    "an unknown preset": ('[applications.shop]\npreset = "owasp"\n', 2, "applications.shop.preset:"),
    "an unknown log level": ('[log]\nlevel = "loud"\n', 2, "log.level:"),
    "no applications": ("applications = {}\n", 1, "applications:"),
    "a bad name": ('[applications."a b"]\npreset = "owasp-low"\n', 2, "applications.a b.preset: an application's name"),
    "no timeout at all": (
        '[applications.shop]\nidle_timeout = "none"\nabsolute_timeout = "none"\n',
        3,
        "applications.shop.absolute_timeout:",
    ),
    "idle over absolute": (
        '[applications.shop]\nabsolute_timeout = "2h"\nidle_timeout = "3h"\n',
        3,
        "applications.shop.idle_timeout: must not be longer than absolute_timeout",
    ),
    "overlap over renewal": (
        '[applications.shop]\nrenewal_timeout = "1m"\nrenewal_overlap = "2m"\n',
        3,
        "applications.shop.renewal_overlap: must not be longer",
    ),
}


@pytest.mark.parametrize(("text", "line", "problem"), BAD.values(), ids=BAD.keys())
def test_a_bad_file_is_refused(tmp_path: Path, text: str, line: int, problem: str) -> None:
    """A malformed configuration is refused with its file, line and key, and what would be right."""
    path = write(tmp_path, text)
    with pytest.raises(BadConfig) as refused:
        load_config(path)
    first = str(refused.value).splitlines()[0]
    assert first.startswith(f"{path}:{line}: {problem}")


def test_every_problem_is_told(tmp_path: Path) -> None:
    """A file with several problems is refused with a line for each."""
    path = write(tmp_path, '[server]\nport = 7\n[applications.shop]\nidle_timeout = "x"\nretention = "0s"\n')
    with pytest.raises(BadConfig) as refused:
        load_config(path)
    lines = str(refused.value).splitlines()
    assert sorted(line.split(": ")[0] for line in lines) == [f"{path}:{number}" for number in (2, 4, 5)]


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """A file that is not there, is a folder, or is no text is refused by name."""
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for path in (tmp_path / "nowhere", tmp_path, tmp_path / "binary"):
        with pytest.raises(BadConfig) as refused:
            load_config(path)
        assert str(refused.value).startswith(f"{path}: ")
