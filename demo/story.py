"""One session's story, each step of it checked."""

from __future__ import annotations

import secrets
import time

from demo.stage import OVERLAP_SECONDS, Authority, Tail, Teller, until
from sessiond_client import (
    Authentication,
    Client,
    ClientContext,
    NextStep,
    Requirements,
    Rolled,
    Token,
    Validation,
    Verdict,
)

__all__ = ["APPLICATION", "Story"]

APPLICATION = "shop"
_SUBJECT = "alice"
_CART = b'["teapot"]'
_LAPTOP = ClientContext(ip_address="192.0.2.10", user_agent="Mozilla/5.0 (X11; Linux x86_64) Firefox/143.0")
_THIEF = ClientContext(ip_address="203.0.113.66", user_agent="curl/8.15.0")
_PHONE = ClientContext(  # behind the same address as the thief: they sit in the same café
    ip_address=_THIEF.ip_address, user_agent="Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X)"
)
_PASSWORD = Authentication(level=1, methods=("pwd",))
_TWO_FACTORS = Authentication(level=2, methods=("pwd", "otp"))
_SENSITIVE = Requirements(min_level=2)
_SEALED_BYTES = 52  # of a token's form, so that it differs from a real one only in the seal


class Story:
    """A guest fills a cart, logs in, loses a cookie, has an old one stolen, logs in again, and logs out everywhere."""

    def __init__(self, client: Client, tail: Tail, teller: Teller) -> None:
        self._client = client
        self._tail = tail
        self._teller = teller
        self._tokens: list[Token] = []

    def tell(self, authority: Authority) -> None:
        """Play all chapters. Raises AssertionError if a step does not have the expected result."""
        guest, session_id = self._guest_with_a_cart()
        token = self._login(guest, session_id)
        old, current = self._lost_cookie(token, session_id)
        self._stolen_token(old, current, session_id)
        laptop, phone = self._two_devices()
        elevated = self._step_up(phone)
        self._guesses(elevated)
        self._logout_everywhere(laptop, elevated)
        self._nothing_leaked(authority)

    def _guest_with_a_cart(self) -> tuple[Token, str]:
        self._teller.heading("A guest opens the shop and puts a teapot into the cart.")
        created = self._client.create(client=_LAPTOP)
        token, session_id = self._keep(created.token), created.session.session_id
        assert created.session.subject == "", "a guest has no subject"
        self._tail.expect("SESSION_CREATED", session_id)
        self._teller.step(f"sessiond opened an anonymous session: {session_id}")
        written = self._client.update_data(token=token, set={"cart": _CART})
        assert written.version == 1, "the first change of the data makes version 1"
        self._tail.expect("SESSION_DATA_CHANGED", session_id)
        self._teller.step("the cart is stored as session data; its event contains neither keys nor values")
        return token, session_id

    def _login(self, guest: Token, session_id: str) -> Token:
        self._teller.heading("The guest logs in: same session, new token.")
        rolled = self._client.authenticate(
            guest,
            _SUBJECT,
            authentication=_TWO_FACTORS,
            client=_LAPTOP,
            reason="login",
        )
        token = self._rolled(rolled, session_id)
        assert token != guest, "login replaces the token"
        self._tail.expect("SESSION_AUTHENTICATED", session_id)
        self._tail.expect("SESSION_ROLLED", session_id)
        self._teller.step(f"the session belongs to {_SUBJECT} at level 2, and has a new token")
        late = self._client.validate(guest, client=_LAPTOP)
        assert late.verdict is Verdict.SUPERSEDED, f"the guest's token is {late.verdict}"
        self._teller.step(f"the token from before the login is denied: {late.verdict}, next step {late.next_step}")
        assert self._client.get_data(token=token).data == {"cart": _CART}, "the cart stays in the session"
        self._teller.step("the teapot is still in the cart")
        return token

    def _lost_cookie(self, token: Token, session_id: str) -> tuple[Token, Token]:
        self._teller.heading(
            "Two seconds later the token is due for renewal, but the response with the new token is lost."
        )
        first = until("a renewed token", lambda: self._renewal(token))
        self._teller.step("sessiond returned a renewed token; the client never received it and sends the old one again")
        again = self._client.validate(token, client=_LAPTOP)
        assert again.valid, f"the old token is {again.verdict}"
        assert again.renewed_token == first.renewed_token, "a repeated renewal returns the same token"
        successor = self._keep(again.renewed_token)
        self._teller.step("it gets the same renewed token again, so there is only one successor")
        used = self._client.validate(successor, client=_LAPTOP)
        straggler = self._client.validate(token, client=_LAPTOP)  # at once: the overlap is short
        assert used.valid, f"the successor is {used.verdict}"
        self._tail.expect("SESSION_RENEWED", session_id)
        self._teller.step("the first use of the renewed token makes it the current one")
        assert straggler.valid, f"during the overlap the old token is {straggler.verdict}"
        assert straggler.renewed_token == successor, "during the overlap the current token is sent again"
        self._teller.step(
            "another tab still sends the old token: it is valid during the overlap, and gets the current one"
        )
        return token, successor

    def _stolen_token(self, old: Token, current: Token, session_id: str) -> None:
        self._teller.heading(
            "A thief has a copy of the old token, and tries it after the overlap, from another network."
        )
        time.sleep(OVERLAP_SECONDS * 1.2)
        theft = self._client.validate(old, client=_THIEF)
        assert theft.verdict is Verdict.REPLAYED, f"the old token is {theft.verdict}"
        alarm = self._tail.expect("HIJACK_SUSPECTED", session_id)
        assert [item["type"] for item in alarm["signals"]] == ["TOKEN_REPLAY"], "the alarm names its reason"
        assert alarm["client"]["ip_address"] == _THIEF.ip_address, "the alarm names the address"
        assert alarm["client"]["user_agent"] == _THIEF.user_agent, "the alarm names the user agent"
        assert alarm["reaction"] == "REVOKE_SESSION", f"the reaction was {alarm['reaction']}"
        self._teller.step(f"{theft.verdict}: denied; the event shows subscribers the thief's address and user agent")
        ended = self._tail.expect("SESSION_REVOKED", session_id)
        assert ended["cause"]["kind"] == "SIGNAL", f"the session was ended by {ended['cause']['kind']}"
        honest = self._client.validate(current, client=_LAPTOP)
        assert honest.verdict is Verdict.REVOKED, f"the current token is {honest.verdict}"
        self._teller.step("sessiond cannot tell which of the two is the thief, so the session has ended for both")

    def _two_devices(self) -> tuple[Token, Token]:
        self._teller.heading(f"{_SUBJECT.capitalize()} logs in again, on the laptop and on a phone.")
        tokens = []
        for name, client in (("laptop", _LAPTOP), ("phone", _PHONE)):
            created = self._client.create(subject=_SUBJECT, authentication=_PASSWORD, client=client)
            self._tail.expect("SESSION_CREATED", created.session.session_id)
            (cookie,) = created.cookies.set_cookie
            assert cookie.reveal().startswith("__Host-id="), "the cookie has the prefix"
            assert "; HttpOnly" in cookie.reveal(), "scripts cannot read the cookie"
            tokens.append(self._keep(created.token))
            self._teller.step(
                f"the {name} has its own session at level 1, and a Set-Cookie header that is ready to send"
            )
        return tokens[0], tokens[1]

    def _step_up(self, token: Token) -> Token:
        self._teller.heading("On the phone, changing the delivery address requires level 2.")
        refused = self._client.validate(token, client=_PHONE, requirements=_SENSITIVE)
        assert refused.verdict is Verdict.INSUFFICIENT, f"the password alone is {refused.verdict}"
        assert refused.next_step is NextStep.STEP_UP, f"the next step is {refused.next_step}"
        assert refused.session is not None, "a good token shows its session"
        (lack,) = refused.unmet
        self._teller.step(f"{refused.verdict}, next step {refused.next_step}: {lack.remedy}")
        rolled = self._client.authenticate(
            token, _SUBJECT, authentication=_TWO_FACTORS, client=_PHONE, reason="address", elevate=True
        )
        elevated = self._rolled(rolled, refused.session.session_id)
        assert self._client.validate(elevated, client=_PHONE, requirements=_SENSITIVE).valid, "level 2 suffices"
        self._tail.expect("SESSION_AUTHENTICATED", refused.session.session_id)
        self._tail.expect("SESSION_ROLLED", refused.session.session_id)
        self._teller.step("after a second factor the session is elevated to level 2 for three seconds")
        return elevated

    def _guesses(self, phone: Token) -> None:
        self._teller.heading("The thief, in the same café, tries tokens that were never issued.")
        for _ in range(5):
            forged = self._client.validate(secrets.token_urlsafe(_SEALED_BYTES), client=_THIEF)
            assert forged.verdict is Verdict.FORGED, f"a made-up token is {forged.verdict}"
        for kind in ("GUESSING_SUSPECTED", "SOURCE_LOCKED"):
            assert self._tail.expect(kind)["source"] == f"{_THIEF.ip_address}/32", f"{kind} names its source"
        (lock,) = self._client.list_source_locks()
        self._teller.step(f"after three guesses an alarm, after five a lock on {lock.source}")
        assert self._client.validate(phone, client=_PHONE).valid, "a lock does not affect other clients of the address"
        self._teller.step("the phone has the same address, and its token is still valid")
        self._client.clear_source_lock(lock.source, reason="a café")
        self._tail.expect("SOURCE_UNLOCKED")
        until("the end of the elevation", lambda: self._is_at_level_1(phone))
        self._teller.step("the lock was removed by a call; meanwhile the elevation has ended by itself")

    def _logout_everywhere(self, laptop: Token, phone: Token) -> None:
        self._teller.heading(f"{_SUBJECT.capitalize()} sees the alarm and logs out everywhere.")
        alive = [session.session_id for session in self._client.list(subject=_SUBJECT)]
        assert len(alive) == 2, f"{len(alive)} devices are listed"
        ended = self._client.revoke_all(subject=_SUBJECT, reason="logout everywhere")
        assert ended.revoked_count == 2, f"{ended.revoked_count} sessions ended"
        for ended_id in alive:
            self._tail.expect("SESSION_REVOKED", ended_id)
        for name, token in (("laptop", laptop), ("phone", phone)):
            answer = self._client.validate(token, at_least=ended.consistency_token)
            assert answer.verdict is Verdict.REVOKED, f"the {name}'s token is {answer.verdict}"
        self._teller.step(
            "laptop and phone were listed, and both sessions are revoked: neither token is ever valid again"
        )

    def _nothing_leaked(self, authority: Authority) -> None:
        self._teller.heading("Finally, a check of everything that was written.")
        written = self._tail.output() + authority.log()
        assert not any(token.reveal() in written for token in self._tokens), "a token was written"
        self._teller.step(f"none of the {len(set(self._tokens))} tokens is in the log or in an event")
        revisions = self._tail.revisions()
        assert revisions == list(range(1, len(revisions) + 1)), f"the revisions came as {revisions}"
        self._teller.step(f"{len(revisions)} events arrived in order, each once, without a gap")

    def _renewal(self, token: Token) -> Validation | None:
        answer = self._client.validate(token, client=_LAPTOP)
        assert answer.valid, f"the current token is {answer.verdict}"
        return answer if answer.next_step is NextStep.REPLACE_TOKEN else None

    def _is_at_level_1(self, token: Token) -> bool:
        answer = self._client.validate(token, client=_PHONE, requirements=_SENSITIVE, passive=True)
        return answer.verdict is Verdict.INSUFFICIENT

    def _rolled(self, rolled: Rolled, session_id: str) -> Token:
        """Check the result of an authentication, and return the session's new token."""
        assert rolled.verdict is Verdict.VALID, f"the presented token was {rolled.verdict}"
        assert rolled.session is not None, "an authentication shows the session"
        assert rolled.session.session_id == session_id, "an authentication keeps the session"
        return self._keep(rolled.token)

    def _keep(self, token: Token | None) -> Token:
        """Remember an issued token, to check at the end that it was written nowhere."""
        assert token is not None, "a token is missing"
        self._tokens.append(token)
        return token
