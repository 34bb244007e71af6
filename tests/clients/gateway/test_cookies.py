"""Reading session cookies: exactly one counts, and anything unclear is ambiguous or nothing, never an error."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sessiond_client.gateway.cookies import CookieNames, Presented, companion_deletions, presented

_ONE = CookieNames("__Host-id", "__Host-id")
_TWO = CookieNames("__Host-id", "__Host-guest")
_VALUE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters=';,"\\ '), min_size=1)
_OTHERS = st.lists(st.tuples(st.sampled_from(["theme", "_ga", "__Host-idx", "id", "Host-id", "x__Host-id"]), _VALUE))


def _read(*headers: str, names: CookieNames = _ONE) -> str | None:
    """The token; None if there is none; "ambiguous"."""
    found = presented(headers, names)
    if found.ambiguous:
        assert found.token is None
        return "ambiguous"
    return None if found.token is None else found.token.reveal()


@pytest.mark.parametrize(
    ("headers", "token"),
    [
        ((), None),
        (("",), None),
        ((";;; ;=;",), None),
        (("theme=dark",), None),
        (("__Host-id=one",), "one"),
        (("theme=dark; __Host-id=one; _ga=GA1.2",), "one"),
        (("\t__Host-id\t=\tone ",), "one"),
        (("__Host-id=one=two==",), "one=two=="),
        (("theme=dark", "__Host-id=one"), "one"),
        (("__Host-id=",), None),
        (("__Host-id",), None),
        (("__Host-id=; __Host-id=one",), "one"),
        (("__host-id=one",), None),
        (('__Host-id="one"',), '"one"'),
    ],
)
def test_one_cookie(headers: tuple[str, ...], token: str | None) -> None:
    """One session cookie is found between others, and its value is not interpreted."""
    assert _read(*headers) == token


@pytest.mark.parametrize(
    "headers",
    [
        ("__Host-id=one; __Host-id=two",),
        ("__Host-id=one", "__Host-id=two"),
        ("__Host-id=one; theme=dark;__Host-id =two",),
        ("__Host-id=one,__Host-id=two",),
        ("theme=dark, __Host-id=two",),
        ("__Host-id=one, theme=dark",),
        ("__Host-id=one; theme=dark,__Host-id=two",),
    ],
)
def test_cookie_tossing(headers: tuple[str, ...]) -> None:
    """A second cookie of the name is ambiguous, however the headers were joined: one may have been planted."""
    assert _read(*headers) == "ambiguous"


@pytest.mark.parametrize("space", ["\u00a0", "\u2000", "\u3000", "\x0b", "\x0c", "\x1f", "\x85"])
def test_no_other_spaces(space: str) -> None:
    """Only spaces and tabs are trimmed, so a cookie that browsers let a sibling host plant is not taken for ours."""
    assert _read(f"{space}__Host-id=planted") is None
    assert _read(f"__Host-id=one; {space}__Host-id=planted") == "one"


def test_a_session_with_a_subject_comes_first() -> None:
    """The cookie of a session with a subject wins over a guest's, whatever their order."""
    assert _read("__Host-guest=g; __Host-id=one", names=_TWO) == "one"
    assert _read("__Host-id=one; __Host-guest=g", names=_TWO) == "one"
    assert _read("__Host-guest=g", names=_TWO) == "g"
    assert _read("__Host-id=; __Host-guest=g", names=_TWO) == "g"
    assert _read("__Host-id=one; __Host-guest=g; __Host-guest=h", names=_TWO) == "ambiguous"


@given(_OTHERS, _VALUE, _OTHERS, st.sampled_from([";", "; ", " ;\t"]))
def test_between_others(
    before: list[tuple[str, str]], value: str, after: list[tuple[str, str]], separator: str
) -> None:
    """The one session cookie is found among any others."""
    pairs = [*before, ("__Host-id", value), *after]
    assert _read(separator.join(f"{name}={text}" for name, text in pairs)) == value


@given(_OTHERS, _VALUE, _OTHERS, _VALUE, st.booleans())
def test_two_among_others(
    before: list[tuple[str, str]], one: str, between: list[tuple[str, str]], two: str, joined: bool
) -> None:
    """Two session cookies are ambiguous among any others, in one header or in two."""
    first = "; ".join(f"{name}={text}" for name, text in [*before, ("__Host-id", one)])
    second = "; ".join(f"{name}={text}" for name, text in [*between, ("__Host-id", two)])
    assert (_read(f"{first}; {second}") if joined else _read(first, second)) == "ambiguous"


@given(st.lists(st.text() | st.sampled_from(["__Host-id=a", ",", ";", "=", "__Host-id"]), max_size=8))
def test_anything(headers: list[str]) -> None:
    """Whatever a client sends, there is an answer, and a token is never empty and never spans two cookies."""
    found = presented(headers, _TWO)
    assert isinstance(found, Presented)
    if found.token is not None:
        assert found.token.reveal()
        assert ";" not in found.token.reveal()


def test_no_token_in_its_repr() -> None:
    """What a request presented may be logged: its token does not show."""
    assert "one" not in repr(presented(["__Host-id=one"], _ONE))


def test_which_companion_cookies_are_deleted() -> None:
    """Those of this host with the name of a purpose, each once and at most ten; partitioned ones as such."""
    sent = ["__Host-id=x; __Host-id-payment=a; __Host-id-payment=b", "__Secure-id-payment=c; __Host-id-a b=d; id-p=e"]
    (deletion,) = companion_deletions(sent, _ONE, partitioned=True)
    assert deletion.startswith("__Host-id-payment=; Path=/; HttpOnly; SameSite=Lax; Secure; Partitioned; Max-Age=0;")
    many = ["; ".join(f"__Host-id-{number}=x" for number in range(20))]
    assert len(companion_deletions(many, _TWO, partitioned=False)) == 10
    guests = CookieNames("__Host-id", "__Host-id-guest")
    assert companion_deletions(["__Host-id-guest=a"], guests, partitioned=False) == []
    assert companion_deletions(["id-payment=a"], CookieNames("id", "id"), partitioned=False) == []
