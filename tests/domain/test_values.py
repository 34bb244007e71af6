"""Session ids, the policies' presets, and event filters."""

from __future__ import annotations

import os
import pickle
import uuid
from dataclasses import replace

import pytest

from sessiond.domain.event import EventFilter, EventType
from sessiond.domain.policy import DEFAULT_PRESET, PRESETS, Policy
from sessiond.domain.values import Instant, Millis, SessionId, VersionedData
from tests.contracts import samples
from tests.support.clock import START

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000


@pytest.mark.parametrize("random", [bytes(10), b"\xff" * 10])
def test_a_session_id_is_a_uuid7(random: bytes) -> None:
    """A session id has the time, the version 7 and the variant of RFC 9562, whatever the random bits."""
    made = uuid.UUID(bytes=bytes(SessionId.make(START, lambda _: random)))
    assert made.version == 7
    assert made.variant == uuid.RFC_4122
    assert made.int >> 80 == START


def test_a_session_id_has_74_random_bits() -> None:
    """Each bit but those of time, version and variant is a random bit of its own; ten random bytes are drawn."""

    def made(bits: int) -> int:
        return int.from_bytes(SessionId.make(START, lambda size: bits.to_bytes(size, "big")))

    changed = [made(1 << bit) ^ made(0) for bit in range(80)]
    assert sorted(difference.bit_count() for difference in changed) == [0] * 6 + [1] * 74
    assert made(2**80 - 1) ^ made(0) == sum(changed)
    with pytest.raises(OverflowError):
        made(2**80)


def test_session_ids_sort_by_time() -> None:
    """A session opened later has the greater id, as bytes and as text, whatever the random bits."""
    earlier = SessionId.make(START, lambda _: b"\xff" * 10)
    later = SessionId.make(Instant(START + 1), lambda _: bytes(10))
    assert earlier < later
    assert str(earlier) < str(later)


def test_a_session_id_as_text_and_back() -> None:
    """The text is the canonical one, and parsing it gives the same id."""
    made = SessionId.make(START, os.urandom)
    assert str(made) == str(uuid.UUID(bytes=bytes(made)))
    assert SessionId.parse(str(made)) == made
    assert repr(made) == f"<SessionId {made}>"
    assert pickle.loads(pickle.dumps(made)) == made


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "0189",
        "01890A5D-AC96-774B-BCCE-B302099A8057",
        "{01890a5d-ac96-774b-bcce-b302099a8057}",
        "urn:uuid:01890a5d-ac96-774b-bcce-b302099a8057",
        "01890a5dac96774bbcceb302099a8057",
        "01890a5d-ac96-774b-bcce-b302099a805",
        "01890a5d-ac96-774b-bcce-b302099a80577",
        "01890a5d-ac96-774b-bcce-b302099a805g",
        " 01890a5d-ac96-774b-bcce-b302099a8057",
        "01890a5d-ac96-774b-bcce-b302099a8057\n",
        "\N{ARABIC-INDIC DIGIT ZERO}1890a5d-ac96-774b-bcce-b302099a8057",
        "0" * 1_000_000,
    ],
)
def test_other_spellings_are_no_session_id(text: str) -> None:
    """Nothing but the canonical lower-case form is a session id."""
    with pytest.raises(ValueError, match=r"."):
        SessionId.parse(text)


@pytest.mark.parametrize("length", [0, 15, 17])
def test_a_session_id_has_16_bytes(length: int) -> None:
    """Any other number of bytes is no session id."""
    with pytest.raises(ValueError, match="16 bytes"):
        SessionId(bytes(length))


@pytest.mark.parametrize(
    ("preset", "idle", "absolute", "renewal"),
    [
        ("owasp-low", 30 * MINUTE, 8 * HOUR, HOUR),
        ("owasp-high", 5 * MINUTE, 4 * HOUR, 15 * MINUTE),
        ("nist-aal1", None, 30 * DAY, HOUR),
        ("nist-aal2", HOUR, 24 * HOUR, HOUR),
        ("nist-aal3", 15 * MINUTE, 12 * HOUR, 15 * MINUTE),
    ],
)
def test_presets(preset: str, idle: int | None, absolute: int, renewal: int) -> None:
    """The presets have the numbers of the design; all keep 64 KiB of data, and history for 30 days, guests' for one."""
    policy = PRESETS[preset]
    assert (policy.preset, policy.idle_timeout, policy.absolute_timeout) == (preset, idle, absolute)
    assert policy.renewal_timeout == renewal
    assert (policy.retention, policy.anonymous_retention, policy.max_data_bytes) == (30 * DAY, DAY, 64 * 1024)
    assert 0 < policy.roll_tolerance < policy.renewal_overlap < renewal
    assert not policy.refresh_extends_lifetime


def test_the_presets_are_these_five() -> None:
    """There are five presets, and the default one is among them."""
    assert set(PRESETS) == {"owasp-low", "owasp-high", "nist-aal1", "nist-aal2", "nist-aal3"}
    assert DEFAULT_PRESET == "owasp-low"


@pytest.mark.parametrize(
    ("idle", "granularity"),
    [
        (None, MINUTE),
        (1, 1),
        (39, 1),
        (40, 2),
        (5 * MINUTE, 15_000),
        (20 * MINUTE - 1, 59_999),
        (20 * MINUTE, MINUTE),
        (30 * MINUTE, MINUTE),
        (DAY, MINUTE),
    ],
)
def test_touch_granularity(idle: int | None, granularity: int) -> None:
    """Recorded activity may lag by a twentieth of the idle timeout, 60 seconds at most, one millisecond at least."""
    policy: Policy = replace(PRESETS["owasp-low"], idle_timeout=None if idle is None else Millis(idle))
    assert policy.touch_granularity == granularity


def test_data_is_not_shown() -> None:
    """The text of a session's data has its version and none of its values."""
    assert repr(VersionedData({"cart": b"canary"}, 7)) == "VersionedData(version=7)"


def test_an_empty_filter_lets_everything_through() -> None:
    """A filter without conditions matches every event."""
    assert EventFilter().matches(samples.event(1))


@pytest.mark.parametrize(
    ("wanted", "matches"),
    [
        (EventFilter(applications=frozenset({"default", "shop"})), True),
        (EventFilter(applications=frozenset({"shop"})), False),
        (EventFilter(subjects=frozenset({"ada"})), True),
        (EventFilter(subjects=frozenset({""})), False),
        (EventFilter(types=frozenset({EventType.SESSION_CREATED})), True),
        (EventFilter(types=frozenset({EventType.SESSION_REVOKED})), False),
        (EventFilter(frozenset({"default"}), frozenset({"ada"}), frozenset({EventType.SESSION_REVOKED})), False),
        (EventFilter(frozenset({"default"}), frozenset({"bob"})), False),
        (EventFilter(frozenset({"default"}), frozenset({"ada"}), frozenset({EventType.SESSION_CREATED})), True),
    ],
)
def test_every_condition_of_a_filter_must_hold(wanted: EventFilter, matches: bool) -> None:
    """An event passes where each condition that is set lets it through."""
    assert wanted.matches(samples.event(1)) is matches
