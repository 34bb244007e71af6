"""One session's story, each step of it checked."""

from __future__ import annotations

from demo.stage import Authority, Tail, Teller, until
from sessiond_client import Authentication, Client, ClientContext, NextStep, Token, Validation, Verdict

__all__ = ["APPLICATION", "Story"]

APPLICATION = "shop"
_SUBJECT = "alice"
_CART = b'["teapot"]'
_LAPTOP = ClientContext(ip_address="192.0.2.10", user_agent="Mozilla/5.0 (X11; Linux x86_64) Firefox/143.0")
_PHONE = ClientContext(ip_address="198.51.100.7", user_agent="Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X)")
_THIEF = ClientContext(ip_address="203.0.113.66", user_agent="curl/8.15.0")


class Story:
    """A guest fills a cart, logs in, loses a cookie, is robbed of an old one, and logs out everywhere."""

    def __init__(self, client: Client, tail: Tail, teller: Teller) -> None:
        self._client = client
        self._tail = tail
        self._teller = teller
        self._tokens: list[Token] = []

    def tell(self, authority: Authority) -> None:
        """All chapters. Raises AssertionError where one does not come out as told."""
        guest, session_id = self._guest_with_a_cart()
        token = self._login(guest, session_id)
        old, current = self._lost_cookie(token, session_id)
        self._stolen_token(old, current, session_id)
        self._logout_everywhere(current, session_id)
        self._nothing_leaked(authority)

    def _guest_with_a_cart(self) -> tuple[Token, str]:
        self._teller.heading("A guest opens the shop and puts a teapot into the cart.")
        created = self._client.create(client=_LAPTOP)
        token, session_id = self._keep(created.token), created.session.session_id
        assert created.session.subject == "", "a guest has no subject"
        self._tail.expect("SESSION_CREATED", session_id)
        self._teller.step(f"an anonymous session is open: {session_id}")
        written = self._client.update_data(token=token, set={"cart": _CART})
        assert written.version == 1, "the first change of the data makes version 1"
        self._tail.expect("SESSION_DATA_CHANGED", session_id)
        self._teller.step("the cart is session data; the event names neither key nor value")
        return token, session_id

    def _login(self, guest: Token, session_id: str) -> Token:
        self._teller.heading("The guest logs in: same session, another secret.")
        rolled = self._client.authenticate(
            guest,
            _SUBJECT,
            authentication=Authentication(level=2, methods=("pwd", "otp")),
            client=_LAPTOP,
            reason="login",
        )
        assert rolled.verdict is Verdict.VALID, f"the guest's token was {rolled.verdict}"
        assert rolled.session is not None, "a login shows the session"
        assert rolled.session.session_id == session_id, "login keeps the session"
        token = self._keep(rolled.token)
        assert token != guest, "login replaces the token"
        self._tail.expect("SESSION_AUTHENTICATED", session_id)
        self._tail.expect("SESSION_ROLLED", session_id)
        self._teller.step(f"{_SUBJECT} is bound to it at level 2, and the token is a new one")
        late = self._client.validate(guest, client=_LAPTOP)
        assert late.verdict is Verdict.SUPERSEDED, f"the guest's token is {late.verdict}"
        self._teller.step(f"the token from before the login is denied: {late.verdict}, next step {late.next_step}")
        assert self._client.get_data(token=token).data == {"cart": _CART}, "the cart goes along"
        self._teller.step("the teapot is still in the cart")
        return token

    def _lost_cookie(self, token: Token, session_id: str) -> tuple[Token, Token]:
        self._teller.heading("A second later the token is due for renewal, and the answer with the new one is lost.")
        first = until("a renewed token", lambda: self._renewal(token))
        self._teller.step("the authority gave a renewed token; the client never saw it, and shows the old one again")
        again = self._client.validate(token, client=_LAPTOP)
        assert again.valid, f"the old token is {again.verdict}"
        assert again.renewed_token == first.renewed_token, "a renewal asked for again is the same"
        successor = self._keep(again.renewed_token)
        self._teller.step("it got the very same successor again: nothing forked")
        used = self._client.validate(successor, client=_LAPTOP)
        straggler = self._client.validate(token, client=_LAPTOP)  # at once: the overlap is short
        assert used.valid, f"the successor is {used.verdict}"
        self._tail.expect("SESSION_RENEWED", session_id)
        self._teller.step("the successor was used for the first time, which makes it the current token")
        assert straggler.valid, f"inside the overlap the old token is {straggler.verdict}"
        assert straggler.renewed_token == successor, "inside the overlap the current token goes out again"
        self._teller.step("another tab, still with the old one, is let in inside the overlap and gets the current one")
        return token, successor

    def _stolen_token(self, old: Token, current: Token, session_id: str) -> None:
        self._teller.heading("Somebody has kept the old token, and tries it after the overlap.")
        theft = until("the end of the overlap", lambda: self._denied(old))
        assert theft.verdict is Verdict.REPLAYED, f"the old token is {theft.verdict}"
        alarm = self._tail.expect("HIJACK_SUSPECTED", session_id)
        assert [item["type"] for item in alarm["signals"]] == ["TOKEN_REPLAY"], "the alarm tells its reason"
        assert alarm["client"]["ip_address"] == _THIEF.ip_address, "the alarm tells from where"
        self._teller.step(f"{theft.verdict}: denied, and every subscriber knows, with the address it came from")

    def _logout_everywhere(self, laptop: Token, session_id: str) -> None:
        self._teller.heading(
            f"{_SUBJECT.capitalize()} opens the shop on a phone, reads the alarm, and logs out everywhere."
        )
        phone = self._client.create(
            subject=_SUBJECT, authentication=Authentication(level=1, methods=("pwd",)), client=_PHONE
        )
        phone_token = self._keep(phone.token)
        self._tail.expect("SESSION_CREATED", phone.session.session_id)
        alive = {session.session_id for session in self._client.list(subject=_SUBJECT)}
        assert alive == {session_id, phone.session.session_id}, "both devices are listed"
        self._teller.step("two sessions are listed: laptop and phone")
        ended = self._client.revoke_all(subject=_SUBJECT, reason="logout everywhere")
        assert ended.revoked_count == 2, f"{ended.revoked_count} sessions ended"
        for ended_id in alive:
            self._tail.expect("SESSION_REVOKED", ended_id)
        for name, token in (("laptop", laptop), ("phone", phone_token)):
            answer = self._client.validate(token, min_revision=ended.revision)
            assert answer.verdict is Verdict.REVOKED, f"the {name}'s token is {answer.verdict}"
        self._teller.step("both are revoked: neither token opens anything, now or ever")

    def _nothing_leaked(self, authority: Authority) -> None:
        self._teller.heading("At the end, a look at what was written along the way.")
        written = self._tail.output() + authority.log()
        assert not any(token.reveal() in written for token in self._tokens), "a token was written"
        self._teller.step(f"none of the {len(set(self._tokens))} tokens stands in the log or in an event")
        revisions = self._tail.revisions()
        assert revisions == list(range(1, len(revisions) + 1)), f"the revisions came as {revisions}"
        self._teller.step(f"{len(revisions)} events came in order, each once, with no gap")

    def _renewal(self, token: Token) -> Validation | None:
        answer = self._client.validate(token, client=_LAPTOP)
        assert answer.valid, f"the current token is {answer.verdict}"
        return answer if answer.next_step is NextStep.REPLACE_TOKEN else None

    def _denied(self, token: Token) -> Validation | None:
        answer = self._client.validate(token, client=_THIEF, passive=True)
        return None if answer.valid else answer

    def _keep(self, token: Token | None) -> Token:
        """A token that was given out: it may stand nowhere that the story can read."""
        assert token is not None, "a token was due"
        self._tokens.append(token)
        return token
