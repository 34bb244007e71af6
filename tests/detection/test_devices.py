"""User agents in words: which browser or program, on what, and what kind of device; whatever a client sends."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessiond.detection import devices
from sessiond.detection.devices import describe
from sessiond.domain.device import UNKNOWN_DEVICE, Device, DeviceType

TABLE = [
    line.split("\t")
    for line in (Path(__file__).parent / "user_agents.tsv").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]
CHROME = "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 {}Safari/537.36"


@pytest.mark.parametrize(("kind", "description", "user_agent"), TABLE, ids=[row[2][:60] for row in TABLE])
def test_a_user_agent(kind: str, description: str, user_agent: str) -> None:
    """A user agent is told by name, major version and platform, and by its kind of device."""
    assert describe(user_agent) == Device(description, DeviceType(kind))


def test_the_table_has_every_kind() -> None:
    """The table has user agents of every kind of device, and none twice."""
    assert set(Counter(kind for kind, _, _ in TABLE)) == set(DeviceType)
    assert len({user_agent for _, _, user_agent in TABLE}) == len(TABLE) > 100


@pytest.mark.parametrize("user_agent", ["", " ", "\t\r\n"])
def test_no_user_agent(user_agent: str) -> None:
    """Without a user agent there is no description and no kind."""
    assert describe(user_agent) == UNKNOWN_DEVICE == Device("", DeviceType.UNSPECIFIED)


@pytest.mark.parametrize(
    ("user_agent", "description"),
    [
        ("shop-app/1.2 (build 7)", "shop-app 1"),
        ("My Shop/3.2.1", "My Shop 3"),
        ("My%20Shop/45 CFNetwork/1496.0.7 Darwin/23.5.0", "My Shop 45 on iOS"),
        ("Shop v2.9.0", "Shop 2"),
        ("Shop 2", "Shop 2"),
        ("Shop/next", "Shop"),
        ("Shop", "Shop"),
        ("Shop; comment", "Shop"),
        ("Boutique été/1", "Boutique été 1"),
        ("Shop/20240131", "Shop"),
        ("Shop/99999", "Shop 99999"),
        ("Shop/\u0661\u0662", "Shop"),
        ("x" * 500 + "/1", "x" * 64 + " 1"),
        ("/1.0", "Unknown program"),
        ("(comment)", "Unknown program"),
        ("\0", "Unknown program"),
        ("Mozilla/5.0", "Unknown browser"),
        ("Mozilla/5.0 (compatible; New Thing/1.0)", "New Thing 1"),
        ("Firefox/" + "9" * 300, "Firefox"),
    ],
)
def test_an_unknown_program(user_agent: str, description: str) -> None:
    """A program that is no browser is known by the name and major version that it gives itself, both cut."""
    assert describe(user_agent).description == description


@pytest.mark.parametrize(
    ("user_agent", "description"),
    [
        ("Shop\u202egnihsihp/1", "Shopgnihsihp 1"),
        ("\u2066Shop\u2069/1", "Shop 1"),
        ("Sh\u200bop\ufeff/1", "Shop 1"),
        ("Shop\r\nSet-Cookie: a=b", "ShopSet-Cookie: a=b"),
        ("\x1b[31mShop\x1b[0m/1", "[31mShop[0m 1"),
        ("Shop\u2028\u2029\x85/1", "Shop 1"),
        ("Sh\ue000op/1", "Shop 1"),
        ("%E2%80%AEShop/45 CFNetwork/1496.0.7 Darwin/23.5.0", "%E2%80%AEShop 45 on iOS"),
        ("Sh\u202eop/45 CFNetwork/1496.0.7 Darwin/23.5.0", "Shop 45 on iOS"),
        ("Mozilla/5.0 (compatible; Sh\u202eop/1)", "Shop 1"),
    ],
    ids=ascii,
)
def test_what_hides_in_a_name_is_left_out(user_agent: str, description: str) -> None:
    """Control characters, line ends, bidirectional overrides and what is invisible are left out of a name."""
    assert describe(user_agent).description == description


PIECES = st.sampled_from([*(row[2] for row in TABLE), "\u202e", "/", "("])


@given(st.text(max_size=1100) | st.lists(PIECES).map("".join))
def test_any_text_is_described_in_one_short_line(user_agent: str) -> None:
    """Whatever a client sends, its description is one line of at most 140 printable characters."""
    description = describe(user_agent).description
    assert len(description) <= 140
    assert not any(unicodedata.category(character)[0] == "C" for character in description)
    assert description.isprintable()
    assert bool(description) == bool(user_agent[:1024].strip())


def test_only_the_first_1024_characters_count() -> None:
    """A user agent is cut before it is read, so that what is remembered of it is bounded too."""
    assert describe("Shop/1 " + "x" * 1017 + "Googlebot/2.1") == describe("Shop/1 " + "x" * 1017)
    assert devices._describe.cache_info().maxsize == 4096


def test_mobile_tells_phones_from_tablets() -> None:
    """A browser on Android says whether it is on a phone; an app does not, and is taken to be on one."""
    assert describe(CHROME.format("Mobile ")).type is DeviceType.PHONE
    assert describe(CHROME.format("")).type is DeviceType.TABLET
    assert describe("Dalvik/2.1.0 (Linux; U; Android 13; Pixel 7)").type is DeviceType.PHONE


def test_a_phone_named_like_a_bot() -> None:
    """A person with a phone of the make Cubot is no bot."""
    assert describe(CHROME.replace("K)", "CUBOT_X18_Plus)").format("Mobile ")).type is DeviceType.PHONE


def test_no_pattern_takes_quadratic_time() -> None:
    """No pattern of devices repeats just any character: clients could send what takes quadratic time to search."""
    assert [pattern.pattern for pattern, _, _ in devices._DEVICES if re.search(r"\.[*+]", pattern.pattern)] == []
