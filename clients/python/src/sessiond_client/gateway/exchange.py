"""One web request and its response: from the request to a question, from the answer to headers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sessiond_client.answers import CompanionIssued, Created, DataUpdated, Found, Revoked, Rolled, Validation
from sessiond_client.enums import NextStep, RequirementKind, Verdict
from sessiond_client.errors import (
    Cancelled,
    ClientClosed,
    DeadlineExceeded,
    OutOfRange,
    ResourceExhausted,
    SessiondError,
    Unavailable,
)
from sessiond_client.gateway.actions import Action, Refusal, Refused, RouteRequirements, refusal
from sessiond_client.gateway.cookies import NO_COOKIE, Presented, companion_deletions, presented
from sessiond_client.gateway.gateway import Gateway
from sessiond_client.gateway.origins import is_cross_site
from sessiond_client.gateway.outgoing import Outgoing
from sessiond_client.gateway.request import WebRequest
from sessiond_client.gateway.settings import matches
from sessiond_client.gateway.steps import Ask, Steps
from sessiond_client.gateway.values import SessionValues
from sessiond_client.questions import Requirements
from sessiond_client.tokens import Token
from sessiond_client.values import ClientContext, Session

__all__ = ["OUTAGES", "Exchange"]

OUTAGES = (Unavailable, DeadlineExceeded, Cancelled, ResourceExhausted, ClientClosed)
"""The errors after which a client should try again later. Any other one is a fault of the application."""


class Exchange:
    """One request and its response. Used by one thread or task at a time.

    `open` asks the one question about the request. `gate` then says whether any handler may run, and `routes.check`
    whether a route's requirements are met. The handler uses `values` and the functions of `account`. `save` writes what
    was changed, and `headers` are for the response.
    """

    def __init__(self, gateway: Gateway, request: WebRequest) -> None:
        self.gateway = gateway
        self.request = request
        self.values = SessionValues(codec=gateway.codec)
        """The session data. Empty for a guest, who gets a session when something is stored in it."""
        self.session: Session | None = None
        """The session that this request is part of; None: it is a guest's."""
        self.token: Token | None = None
        """What the client presented, or what replaces it."""
        self.csrf: Token | None = None
        """The session's CSRF token, for pages."""
        self.accessed = False
        """Whether the response depends on the session."""
        self.validation: Validation | None = None
        """The answer about this request; None: nothing was asked, or nobody answered."""
        self._presented = NO_COOKIE
        self._failure: SessiondError | None = None
        self._csrf_failed = False
        self._is_replaced = False
        self._began = gateway.clock()
        self._answered_at = 0.0
        self._outgoing = Outgoing()
        self._client: ClientContext | None = None

    @property
    def client(self) -> ClientContext:
        """What is known of the user's client."""
        if self._client is None:
            self._client = self.request.client(self.gateway.settings.trusted_proxies)
        return self._client

    @property
    def subject(self) -> str:
        """The user who is logged in; empty for a guest."""
        self.accessed = True
        return self.session.subject if self.session is not None else ""

    @property
    def renewed_token(self) -> Token | None:
        """The token that a client without cookies must use from now on; None: it keeps the one that it has."""
        if self.token is not None and self.token != self._presented.token:
            return self.token
        return self.validation.renewed_token if self.validation is not None else None

    @property
    def is_ambiguous(self) -> bool:
        """Whether the client presented several session cookies of one name."""
        return self._presented.ambiguous

    @property
    def failure(self) -> SessiondError | None:
        """Why the authority could not answer; None: it could."""
        return self._failure

    @property
    def keeps_cookie(self) -> bool:
        """Whether the client's cookie must stay as it is: a newer one may be on its way, or nobody could check it."""
        return (
            matches(self.request.path, self.gateway.settings.ignored_paths)  # nobody has looked at the cookie
            or self._failure is not None
            or self._csrf_failed
            or self._is_replaced
            or self._presented.ambiguous
            or _was_told_to_keep_cookie(self)
        )

    @property
    def may_create(self) -> bool:
        """Whether a session may be created for a guest: its cookie would replace a newer one that is on its way."""
        if self.keeps_cookie:
            return False
        # What a page notes by itself is not worth the risk; what the user asked for is.
        late = self.gateway.clock() - self._began > self.gateway.settings.late_after
        return not (late and self.request.is_safe)

    @property
    def is_passive(self) -> bool:
        """Whether this request does not count as activity."""
        return self.request.is_passive or matches(self.request.path, self.gateway.settings.passive_paths)

    @property
    def is_late(self) -> bool:
        """Whether the answer about this request is so old that the client may have another token by now."""
        return self.gateway.clock() - self._answered_at > self.gateway.settings.late_after

    def open(self, *, csrf: bool | None = None, with_data: bool = True, with_csrf_token: bool = True) -> Steps[None]:
        """Ask about the request's session, with its data and CSRF token, in one question. An outage does not raise.

        `csrf`: whether the CSRF token is required. None: as method and settings say. `with_data`, `with_csrf_token`:
        whether `values` and `csrf` are needed; without them the question costs less.
        """
        request, settings = self.request, self.gateway.settings
        if matches(request.path, settings.ignored_paths):
            return
        if csrf is None:
            guarded = request.is_handshake or not request.is_safe
            csrf = request.token is None and guarded and not matches(request.path, settings.csrf_exempt)
        if csrf and self.is_cross_site():
            self._csrf_failed = True  # and nothing is asked: a forged request is no activity of the user
            return
        try:
            self._presented = yield from _find_token(self)
            token = self._presented.token
            if token is None:
                return
            self.token = token
            requirements = Requirements(csrf=self.presented_csrf()) if csrf and not request.is_handshake else None
            answer = yield from _question(self, token, requirements, data=with_data, csrf_token=with_csrf_token)
        except OUTAGES as error:
            self._failure = error
            return
        except SessiondError as error:
            self._failure = error
            raise
        _take(self, answer)

    def gate(self) -> Action:
        """Whether any handler may run. Routes have requirements of their own."""
        if self._failure is not None:
            public = matches(self.request.path, self.gateway.settings.public_paths)
            return Action.PROCEED if public else Action.RETRY_LATER
        if self._csrf_failed:
            return Action.CSRF_ERROR
        if self._presented.ambiguous:
            return Action.PROCEED if self.request.is_safe else Action.AMBIGUOUS
        if self.validation is not None and self.validation.verdict is Verdict.LOCKED:
            return Action.LOCKED
        return Action.PROCEED

    def without_user(self) -> Action:
        """What to do if nobody is logged in, but somebody must be."""
        gate, answer = self.gate(), self.validation
        if gate is not Action.PROCEED:
            return gate
        if self._failure is not None:
            return Action.RETRY_LATER  # a login could not help, not even on a public path
        if self.is_ambiguous:
            return Action.AMBIGUOUS
        denied = answer is not None and self.session is None
        return Action.STEP_UP if denied and answer and answer.next_step is NextStep.STEP_UP else Action.LOGIN

    def refusal(self, action: Action, requirements: RouteRequirements | None = None) -> Refusal:
        """The response for an action other than PROCEED."""
        request, login_path = self.request, self.gateway.settings.login_path
        return refusal(
            action,
            page=request.is_page,
            login_path=login_path,
            next_path=request.own_path if request.path != login_path else "",
            requirements=requirements,
            lock_seconds=self.gateway.lock_seconds,
            retry_after=getattr(self._failure, "retry_after", None) or 0.0,
        )

    def refuse(self, action: Action, requirements: RouteRequirements | None = None) -> Refused:
        """The exception for an action other than PROCEED."""
        return Refused(self.refusal(action, requirements))

    def save(self) -> Steps[bool]:
        """Store what was changed, and nothing if nothing was. A guest with new data gets a session.

        Returns False if the data could not be stored, because the session has ended since or (a guest's) has become a
        user's, or because the client's cookie must stay as it is and this is only a page. Raises `Refused` in the last
        case if the user wanted something stored, and `SessiondError` if the authority cannot store it.
        """
        changes = self.values.changes()
        if not changes:
            return True
        if self.session is None:
            if not changes.set or not self.may_create:
                if changes.set and not self.request.is_safe and self.gate() is Action.PROCEED:
                    raise self.refuse(self.without_user())  # otherwise it would be lost without a word
                return not changes.set
            created = yield Ask("create", kwargs={"client": self.client, "data": changes.set})
            self.adopt(created)
            self.values.written(changes)
            return True
        named = yield from _reference(self, self.session)
        if named is None:
            return False
        updated: DataUpdated = yield Ask("update_data", kwargs={**named, "set": changes.set, "delete": changes.delete})
        if updated.verdict is not Verdict.VALID:
            return False
        self.values.written(changes)
        _note(self, updated.consistency_token)
        return True

    def headers(self, *, has_cache_control: bool = False) -> list[tuple[str, str]]:
        """The headers for the response, to be read when it begins. They contain secrets.

        Append `Set-Cookie` and `Vary`; any other one replaces a header of that name. `has_cache_control`: whether the
        application has set `Cache-Control` itself.
        """
        headers = self._outgoing.headers(late=self.is_late)
        if self.accessed or self.values.accessed:
            headers.append(("Vary", "Cookie"))
            cache_control = self.gateway.settings.cache_control
            named = has_cache_control or any(name == "Cache-Control" for name, _ in headers)
            if cache_control and not named and self.session is not None and self.session.subject:
                headers.append(("Cache-Control", cache_control))
        return headers

    # For `account`, which changes sessions

    def adopt(self, answer: Created | Rolled) -> None:
        """Go on with the session and the token of an answer."""
        _note(self, answer.consistency_token)  # a near cache may still hold a good answer about the old token
        if self.token is not None:
            self.gateway.replaced.note(self.token, answer.consistency_token)
        self.session, self.token, self.csrf = answer.session, answer.token, answer.csrf_token
        self._answered_at = self.gateway.clock()
        self.take_cookies(answer)
        _note(self, answer.consistency_token)

    def leave(self, answer: Revoked | None = None) -> None:
        """Go on as a guest, without anything of the session."""
        if answer is not None:
            _note(self, answer.consistency_token)
        self.session = self.token = self.csrf = None
        self.values.forget_all()
        if answer is not None:
            self.take_cookies(answer)
            self._outgoing.added(_companions_deleted(self, answer))

    def take_cookies(self, answer: Created | Rolled | Revoked) -> None:
        """Send the cookies of this answer, if it has any, instead of those of earlier ones."""
        self.accessed = True
        self._outgoing.changed(answer.cookies.headers())

    def take_companion(self, answer: CompanionIssued) -> None:
        """Send the cookie of a companion token in addition."""
        self.accessed = True
        self._outgoing.added(answer.cookies.headers())

    def presented_csrf(self) -> Token | None:
        """The CSRF token that the client presented, in a header or in a form."""
        sent = self.request.headers(self.gateway.settings.csrf_header.lower())
        text = sent[0] if sent else None if self.request.is_safe else self.request.form_token()
        return Token(text) if text else None

    def failed(self, error: SessiondError) -> Action:
        """Note that the authority cannot answer now. The failed call may have replaced the validation's cookies."""
        self._failure = error
        self._outgoing.drop_validated()
        return Action.RETRY_LATER

    def is_cross_site(self) -> bool:
        """Whether the browser says that a page of another site sent this request."""
        request, trusted = self.request, self.gateway.settings.trusted_origins
        return is_cross_site(request.headers("sec-fetch-site"), request.headers("origin"), request.host, trusted)


def _was_told_to_keep_cookie(exchange: Exchange) -> bool:
    answer = exchange.validation
    if answer is None or exchange.session is not None:
        return False
    is_copy = answer.verdict is Verdict.REPLAYED and bool(answer.signals)
    if is_copy and exchange.request.path == exchange.gateway.settings.login_path:
        # A copy of an old token is kept because the client probably has a newer one. The login page is requested after
        # a denial, with the cookie that the client has by then: so this client has none.
        return False
    return answer.next_step in (NextStep.KEEP_TOKEN, NextStep.STEP_UP)


def _companions_deleted(exchange: Exchange, answer: Revoked) -> list[tuple[str, str]]:
    """The headers that delete the session's companion cookies, if those of the session are deleted or replaced."""
    names = exchange.gateway.cookie_names
    if names is None or not answer.cookies.set_cookie:
        return []
    partitioned = any("; Partitioned" in cookie.reveal() for cookie in answer.cookies.set_cookie)
    deletions = companion_deletions(exchange.request.headers("cookie"), names, partitioned=partitioned)
    return [("Set-Cookie", deletion) for deletion in deletions]


def _note(exchange: Exchange, consistency_token: str) -> None:
    if exchange.token is not None:
        exchange.gateway.recent.note(exchange.token, consistency_token)


def _find_token(exchange: Exchange) -> Steps[Presented]:
    """What the request presented. The frame holds no cookie, because it may be part of a traceback."""
    request = exchange.request
    if request.token is not None:
        return Presented(request.token)
    if not request.headers("cookie"):
        return NO_COOKIE
    facts = yield from exchange.gateway.facts()
    return presented(request.headers("cookie"), facts.cookies)


def _question(
    exchange: Exchange, token: Token, requirements: Requirements | None, *, data: bool, csrf_token: bool
) -> Steps[Validation]:
    """The one question about a request."""
    at_least = exchange.gateway.recent.at_least(token)
    kwargs = {
        "client": exchange.client,
        "passive": exchange.is_passive,
        "requirements": requirements,
        "with_csrf_token": csrf_token,
        "data": data or None,
    }
    if at_least:
        try:
            newest: Validation = yield Ask("validate", (token,), {**kwargs, "at_least": at_least})
        except OutOfRange:
            pass  # the log was restored from a backup, and does not know of the change
        else:
            return newest
    answer: Validation = yield Ask("validate", (token,), kwargs)
    return answer


def _reference(exchange: Exchange, session: Session) -> Steps[Mapping[str, Any] | None]:
    """How a call names the session of this request. None: it is no longer a session of the same user.

    A handler may take minutes. By then the client may have replaced its token, and the old one would look as if it
    had been stolen. So a late request names its session by id; and a guest's, which may be planted, must not have
    become a user's.
    """
    if not exchange.is_late:
        return {"token": exchange.token}
    found: Found = yield Ask("get", kwargs={"session_id": session.session_id})
    same = found.session is not None and found.session.subject == session.subject
    return {"session_id": session.session_id} if same and found.verdict is Verdict.VALID else None


def _take(exchange: Exchange, answer: Validation) -> None:
    """Go on with the answer about the request."""
    exchange.validation, exchange._answered_at = answer, exchange.gateway.clock()
    if answer.valid:
        exchange._outgoing.validated(answer.cookies.headers())
        exchange.session, exchange.csrf = answer.session, answer.csrf_token
        exchange.values = SessionValues(answer.data.values if answer.data is not None else {}, exchange.gateway.codec)
        return
    # A dead token may have come after a login replaced it: the authority does not know that, but this process may.
    exchange._is_replaced = exchange.token is not None and bool(exchange.gateway.replaced.at_least(exchange.token))
    # A form or an upload may take minutes to arrive, and the client may have logged in again by then. If it has not,
    # the next page deletes the dead cookie.
    if exchange.request.is_safe and not exchange._is_replaced:
        exchange._outgoing.validated(answer.cookies.headers())
    kinds = {unmet.kind for unmet in answer.unmet}
    exchange._csrf_failed = kinds == {RequirementKind.CSRF_TOKEN}
