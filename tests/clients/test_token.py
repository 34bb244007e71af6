"""A token shows itself to nobody who does not ask."""

from __future__ import annotations

import copy
import dataclasses
import json
import logging
import pickle
import traceback
from datetime import UTC, datetime

import pytest

from sessiond_client import (
    ClientContext,
    ConcurrencyLimit,
    ConcurrencyLimitReached,
    CookieDirectives,
    Created,
    Question,
    Requirements,
    Session,
    SessionState,
    Token,
)

SECRET = "kQ3vX0canary0canary0canary0canary0canary0canary0canary0canary0canary0A"


def created() -> Created:
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    session = Session(
        session_id="0192d3a4-0000-7000-8000-000000000000",
        application="shop",
        subject="",
        state=SessionState.ACTIVE,
        generation=0,
        create_time=moment,
        last_active_time=moment,
        idle_expire_time=None,
        absolute_expire_time=None,
        login_expire_time=None,
        persistent=False,
        authentication=None,
        elevation_expire_time=None,
        client=ClientContext(),
        last_client=None,
        device=None,
        last_device=None,
        labels={},
        lifetimes=None,
        data_version=0,
        ending=None,
    )
    return Created(
        session=session,
        token=Token(SECRET),
        csrf_token=Token(SECRET),
        cookies=CookieDirectives(set_cookie=(Token(f"id={SECRET}"),)),
        evicted_session_ids=(),
        consistency_token="c1",
    )


def limit() -> ConcurrencyLimit:
    return ConcurrencyLimit(max_sessions=1, live_sessions=(), ticket=Token(SECRET), ticket_expire_time=None)


@pytest.mark.parametrize(
    "shown",
    [
        repr(Token(SECRET)),
        str(Token(SECRET)),
        f"{Token(SECRET)}",
        f"{Token(SECRET)!r:>20}",
        "{:^30}".format(Token(SECRET)),  # noqa: UP032 - the other way into __format__
        "%s %r" % (Token(SECRET), Token(SECRET)),  # noqa: UP031 - as old logging calls do
        repr([Token(SECRET)]),
        repr(created()),
        repr(Question(SECRET)),
        repr(Requirements(companion=("pay", SECRET), csrf=SECRET)),
        repr(Question(SECRET, requirements=Requirements(companion=("pay", SECRET), csrf=SECRET))),
        f"{created().cookies} {created().cookies!r}",
        f"{limit()} {ConcurrencyLimitReached(limit())} {ConcurrencyLimitReached(limit())!r}",
        repr(dataclasses.asdict(created())),
    ],
)
def test_no_way_of_showing_shows_it(shown: str) -> None:
    """No text made of a token, or of a value that holds one, has the secret in it."""
    assert SECRET not in shown


def test_reveal_gives_the_secret() -> None:
    """`reveal` is the way to the secret."""
    assert Token(SECRET).reveal() == SECRET
    assert Token(Token(SECRET)).reveal() == SECRET


def test_logging_does_not_show_it(caplog: pytest.LogCaptureFixture) -> None:
    """A token that is logged shows nothing."""
    with caplog.at_level(logging.INFO):
        logging.getLogger("shop").info("presented: %s %r", Token(SECRET), Token(SECRET))
    assert SECRET not in caplog.text
    assert "<Token>" in caplog.text


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_it_cannot_be_pickled(protocol: int) -> None:
    """A pickle is a copy that somebody keeps: a token refuses, and so does what holds one."""
    for value in (Token(SECRET), created()):
        with pytest.raises(TypeError) as refusal:
            pickle.dumps(value, protocol)
        assert SECRET not in str(refusal.value)


def test_it_is_not_json() -> None:
    """A token does not turn into JSON by accident."""
    with pytest.raises(TypeError) as refusal:
        json.dumps({"token": Token(SECRET)})
    assert SECRET not in str(refusal.value)


def test_copies_are_the_token_itself() -> None:
    """Copying a value that holds a token leaves the token a token."""
    assert copy.deepcopy(created()).token == Token(SECRET)
    assert copy.copy(Token(SECRET)) == Token(SECRET)


def test_tokens_compare_by_their_secret_and_only_with_tokens() -> None:
    """Equal secrets are equal tokens; text is no token."""
    assert Token(SECRET) == Token(SECRET)
    assert hash(Token(SECRET)) == hash(Token(SECRET))
    assert Token(SECRET) != Token(SECRET[:-1])
    assert Token(SECRET) != SECRET


@pytest.mark.parametrize("value", [SECRET.encode(), bytearray(SECRET.encode()), [SECRET], None, 7])
def test_what_is_not_text_is_refused_without_being_shown(value: object) -> None:
    """Only text can be wrapped, and the refusal does not repeat what was given."""
    with pytest.raises(TypeError) as refusal:
        Token(value)  # type: ignore[arg-type]  # the mistake that is tested
    assert SECRET not in "".join(traceback.format_exception(refusal.value))


def test_text_that_is_no_unicode_is_wrapped_and_cannot_raise_later() -> None:
    """Odd bytes in a cookie become a token that is merely wrong, not an encoding error that carries the cookie."""
    assert Token("abc\udcff").reveal() == "abc?"
