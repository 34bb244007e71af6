"""A web application in front of the authority, which handles every response as a careful application does.

It calls the real service, message by message, and passes on every cookie directive. It protects forms by CSRF tokens
and uses a form's nonce as `request_id`, so that a form that is sent twice takes effect once. Logins need no nonce.
"""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Final

from google.protobuf.message import Message

from sessiond.domain.errors import InvalidField
from sessiond_stubs.v1 import session_authority_pb2 as pb
from tests.simulation.bounds import SECOND, Bounds
from tests.simulation.expected import Life
from tests.simulation.service import Service
from tests.simulation.tally import LOGOUT, Tally
from tests.simulation.wheel import Wheel

__all__ = ["AGAIN", "COMPANION", "LOGIN", "PAGE", "SESSION", "STEP_UP", "Request", "Response", "Site"]

SESSION = "__Host-id"
COMPANION = "__Host-id-payment"
_PURPOSE = "payment"

PAGE: Final = "page"  # the page itself
LOGIN: Final = "login"  # the login page
STEP_UP: Final = "step up"  # the form to authenticate again
AGAIN: Final = "again"  # only this request was denied, and nothing else has changed


@dataclass(frozen=True, slots=True)
class Request:
    """A request of a browser, and what the application's proxies saw of its client.

    `lives` and `elsewhere` are for the tally only: what the request is part of, and whether its client was seen
    from several networks recently, or incompletely.
    """

    path: str
    cookies: Mapping[str, str]
    client: pb.ClientContext
    subject: str = ""
    csrf: str = ""
    nonce: str = ""
    remember: bool = False
    lives: frozenset[Life] = frozenset()
    elsewhere: bool = False

    def with_form(self, subject: str, csrf: str, nonce: str, *, remember: bool) -> Request:
        """Return the request with the fields of a form."""
        return replace(self, subject=subject, csrf=csrf, nonce=nonce, remember=remember)

    def being(self, life: Life, *, elsewhere: bool = False) -> Request:
        """Return the request, as part of this life too."""
        return replace(self, lives=self.lives | {life}, elsewhere=self.elsewhere or elsewhere)


@dataclass(slots=True)
class Response:
    """The response to a browser; `rolls` says that its token replaces every older one."""

    page: str
    csrf: str = ""
    set_cookie: list[str] = field(default_factory=list)
    clears_cookies: bool = False
    rolls: bool = False

    def carry(self, cookies: pb.CookieDirectives) -> None:
        """Pass on the cookie directives of one response of the authority."""
        self.set_cookie.extend(cookies.set_cookie)
        self.clears_cookies = self.clears_cookies or "cookies" in cookies.clear_site_data


class Site:
    """The pages, each with its rules. `level` is that of a login; payments need one more."""

    def __init__(
        self, service: Service, wheel: Wheel, tally: Tally, random: Random, bounds: Bounds, level: int
    ) -> None:
        self._service = service
        self._wheel = wheel
        self._tally = tally
        self._random = random
        self._bounds = bounds
        self._level = level
        self._presented: set[str] = set()
        self._pages: Mapping[str, Callable[[Request, str], Awaitable[Response]]] = {
            "/": self._view,
            "/part": self._part,
            "/upload": self._part,
            "/poll": self._poll,
            "/save": self._save,
            "/login": self._login,
            "/payment": self._payment,
            "/elevate": self._elevate,
            "/password": self._password,
            "/logout": self._logout,
        }

    async def handle(self, request: Request) -> Response:
        """Handle one request."""
        self._note(request)
        token = request.cookies.get(SESSION, "")
        if not token:
            return await self._anew(request)
        return await self._pages[request.path](request, token)

    # Pages

    async def _view(self, request: Request, token: str) -> Response:
        answer = await self._validate(request, token, with_csrf=True)
        response = await self._denied(request, answer)
        if response is None:
            response = self._shown(PAGE if answer.session.subject else LOGIN, answer)
        return response

    async def _part(self, request: Request, token: str) -> Response:
        answer = await self._validate(request, token)
        return self._shown(PAGE if answer.verdict == pb.VERDICT_VALID else AGAIN, answer)

    async def _poll(self, request: Request, token: str) -> Response:
        answer = await self._validate(request, token, passive=True)
        return self._shown(PAGE if answer.verdict == pb.VERDICT_VALID else AGAIN, answer)

    async def _save(self, request: Request, token: str) -> Response:
        answer = await self._validate(request, token, csrf=request.csrf)
        response = await self._denied(request, answer)
        if response is None:
            message = pb.UpdateSessionDataRequest(
                session=pb.SessionReference(token=token), request_id=request.nonce, set={"cart": request.nonce.encode()}
            )
            await self._change("UpdateSessionData", message, request)
            response = self._shown(PAGE, answer)
        return response

    async def _login(self, request: Request, token: str) -> Response:
        answer = await self._validate(request, token, csrf=request.csrf)
        if answer.verdict == pb.VERDICT_REPLAYED and answer.next_step == pb.NEXT_STEP_KEEP_TOKEN:
            # Its login page had no CSRF token. A real application checks where the form comes from.
            return await self._authenticate(request, token, elevate=False, or_create=True)
        # SUPERSEDED: the form was sent twice, the first one rolled the token, and its response is stored.
        # STEP_UP: the client must authenticate, which is what this login does.
        if answer.verdict != pb.VERDICT_SUPERSEDED and answer.next_step != pb.NEXT_STEP_STEP_UP:
            response = await self._denied(request, answer)
            if response is not None:
                return response
        return await self._authenticate(request, token, elevate=False)

    async def _elevate(self, request: Request, token: str) -> Response:
        answer = await self._validate(request, token, csrf=request.csrf)
        if answer.verdict != pb.VERDICT_SUPERSEDED and answer.next_step != pb.NEXT_STEP_STEP_UP:
            response = await self._denied(request, answer)
            if response is not None:
                return response
        if answer.verdict != pb.VERDICT_SUPERSEDED and not answer.session.subject:  # it ended while the form was open
            return self._shown(LOGIN, answer)
        return await self._authenticate(request, token, elevate=True)

    async def _authenticate(self, request: Request, token: str, *, elevate: bool, or_create: bool = False) -> Response:
        level = self._level + 1 if elevate else self._level
        message = pb.AuthenticateSessionRequest(
            token=token,
            subject=request.subject,
            client=request.client,
            authentication=pb.Authentication(level=level, methods=["otp" if elevate else "pwd"]),
            persistent=request.remember,
            elevate=elevate,
            or_create=or_create,
            # A login needs no id: if it is sent twice, it gets its first response again.
            request_id=request.nonce if elevate else "",
        )
        given = await self._change("AuthenticateSession", message, request)
        if given is None or not given.token:
            return Response(AGAIN)
        response = Response(PAGE, given.csrf_token, rolls=True)
        response.carry(given.cookies)
        if elevate:
            await self._wheel.sleep(20)  # this takes time too
            self._note(request)
            companion = await self._service.ask(
                "IssueCompanionToken",
                pb.IssueCompanionTokenRequest(token=given.token, client=request.client, purpose=_PURPOSE),
            )
            response.carry(companion.cookies)
        return response

    async def _payment(self, request: Request, token: str) -> Response:
        needed = pb.Requirements(
            min_level=self._level + 1,
            companion=pb.CompanionRequirement(purpose=_PURPOSE, companion_token=request.cookies.get(COMPANION, "")),
        )
        answer = await self._validate(request, token, with_csrf=True, needed=needed)
        if answer.verdict == pb.VERDICT_INSUFFICIENT:
            return self._shown(STEP_UP if answer.session.subject else LOGIN, answer)
        return await self._denied(request, answer) or self._shown(PAGE, answer)

    async def _password(self, request: Request, token: str) -> Response:
        answer = await self._validate(request, token, csrf=request.csrf)
        if answer.verdict != pb.VERDICT_SUPERSEDED:
            response = await self._denied(request, answer)
            if response is not None:
                return response
        message = pb.RollSessionRequest(token=token, client=request.client, reason="password", request_id=request.nonce)
        given = await self._change("RollSession", message, request)
        if given is None or not given.token:
            return Response(AGAIN)
        response = Response(PAGE, given.csrf_token, rolls=True)
        response.carry(given.cookies)
        return response

    async def _logout(self, request: Request, token: str) -> Response:
        answer = await self._validate(request, token, csrf=request.csrf)
        response = await self._denied(request, answer)
        if response is not None:
            return response
        message = pb.RevokeSessionRequest(
            session=pb.SessionReference(token=token),
            client=request.client,
            reason=LOGOUT,
            open_anonymous=True,
            request_id=request.nonce,
        )
        ended = await self._change("RevokeSession", message, request)
        if ended is None:
            return Response(AGAIN)
        response = Response(LOGIN, ended.csrf_token)
        response.carry(ended.cookies)
        return response

    # Shared parts

    async def _denied(self, request: Request, answer: pb.ValidateSessionResponse) -> Response | None:
        """Return the response of a page that may not be shown; None if it may."""
        if answer.verdict == pb.VERDICT_VALID:
            return None
        if answer.next_step == pb.NEXT_STEP_DISCARD_TOKEN:
            return await self._anew(request)
        if answer.verdict == pb.VERDICT_REPLAYED:  # a copy of an old token: the user has to log in
            return Response(LOGIN)
        if answer.next_step != pb.NEXT_STEP_STEP_UP:
            return self._shown(AGAIN, answer)
        return self._shown(STEP_UP if answer.session.subject else LOGIN, answer)

    async def _anew(self, request: Request) -> Response:
        """Return the login page, with a new anonymous session."""
        if request.path in ("/part", "/upload", "/poll"):
            return Response(AGAIN)
        opened = await self._service.ask(
            "CreateSession",
            pb.CreateSessionRequest(client=request.client, login_page=True, request_id=self._uuid()),
        )
        response = Response(LOGIN, opened.csrf_token)
        response.carry(opened.cookies)
        return response

    @staticmethod
    def _shown(page: str, answer: pb.ValidateSessionResponse) -> Response:
        response = Response(page, answer.csrf_token)
        response.carry(answer.cookies)
        return response

    async def _validate(
        self,
        request: Request,
        token: str,
        *,
        passive: bool = False,
        with_csrf: bool = False,
        csrf: str | None = None,
        needed: pb.Requirements | None = None,
    ) -> pb.ValidateSessionResponse:
        message = pb.ValidateSessionRequest(
            token=token, client=request.client, passive=passive, with_csrf_token=with_csrf, requirements=needed
        )
        if csrf is not None:
            message.requirements.csrf.csrf_token = csrf
        self._presented.add(token)
        # As the server does: use the fast path if it answers.
        answer = self._service.fast_path(message)
        if answer is None:
            answer = await self._service.ask("ValidateSession", message)
            if self._random.random() < self._bounds.repeat_call:
                self._tally.traffic["calls repeated"] += 1
                answer = await self._service.ask("ValidateSession", message)
        name = pb.Verdict.Name(answer.verdict).removeprefix("VERDICT_")
        if answer.verdict == pb.VERDICT_REPLAYED:
            # If normal use explains an old token, the event shows what followed.
            name = name if answer.signals and not request.lives else "OLD" if answer.signals else "MISSED"
        self._tally.verdicts[name] += 1
        if answer.renewed_token:
            # The successor of the presented token. If it is in use already, the overlap has accepted an older one.
            late = answer.renewed_token in self._presented
            self._tally.traffic["older tokens in flight" if late else "renewals offered"] += 1
        return answer

    async def _change(self, method: str, message: Message, request: Request) -> Any:
        """Make a change, and retry it a second later if the response is lost. Return None if it is refused."""
        try:
            answer = await self._service.ask(method, message)
            if self._random.random() < self._bounds.repeat_call:
                self._tally.traffic["calls repeated"] += 1
                await self._wheel.sleep(SECOND)
                self._note(request)
                again = await self._service.ask(method, message)
                if again != answer:
                    raise AssertionError(f"{method} answered a repeated call differently")
        except InvalidField:
            # The form came again but is different by now, for example from another address.
            self._tally.traffic["forms refused"] += 1
            return None
        verdict = getattr(answer, "verdict", None)
        if verdict is not None:
            self._tally.verdicts[pb.Verdict.Name(verdict).removeprefix("VERDICT_")] += 1
        return answer

    def _note(self, request: Request) -> None:
        """Record in the tally what a request is part of, which explains events of the log."""
        self._tally.note(self._wheel.now, request.client, request.lives, elsewhere=request.elsewhere)

    def _uuid(self) -> str:
        return str(uuid.UUID(bytes=self._random.randbytes(16), version=4))
