"""Calls that issue session tokens."""

from __future__ import annotations

from sessiond.authority.logins import Logins
from sessiond.authority.results import ChangeResult
from sessiond.domain.call import Call
from sessiond.domain.errors import InvalidField
from sessiond.rpc import cookies, decode, encode
from sessiond.rpc.service.calls import Calls, Change, changing, note_change
from sessiond_stubs.v1 import session_authority_pb2 as pb

__all__ = ["LoginService"]

_TokenResponse = pb.CreateSessionResponse | pb.AuthenticateSessionResponse | pb.RollSessionResponse


class LoginService:
    """The calls CreateSession, AuthenticateSession and RollSession."""

    def __init__(self, calls: Calls, logins: Logins) -> None:
        self._calls = calls
        self._logins = logins

    @changing(pb.CreateSessionResponse)
    def CreateSession(self, call: Call, request: pb.CreateSessionRequest) -> Change[ChangeResult]:
        """Open a session."""
        login, choice = decode.login(request), decode.ticket_choice(request)
        if not request.subject and request.HasField("authentication"):
            remedy = "is not allowed for an anonymous session; set subject, or leave authentication out"
            raise InvalidField("authentication", remedy)
        if request.subject and request.login_page:
            raise InvalidField("login_page", "is not allowed for a session with a subject; leave it out")
        data = decode.initial_data(request.data)
        return Change(
            lambda reply: self._logins.create(call, login, data, reply, login_page=request.login_page, choice=choice),
            lambda response, changed: self._fill_login(response, call, changed),
            note_change,
        )

    @changing(pb.AuthenticateSessionResponse)
    def AuthenticateSession(self, call: Call, request: pb.AuthenticateSessionRequest) -> Change[ChangeResult]:
        """Bind a subject, authenticate it again, elevate it, or (with `or_create`) log it in without a valid token."""
        decode.subject(request.subject)
        login, choice, token = decode.login(request), decode.ticket_choice(request), decode.token(request.token)

        def fill(response: pb.AuthenticateSessionResponse, changed: ChangeResult) -> None:
            response.verdict = encode.VERDICT[changed.verdict]
            if changed.presented is not None:
                response.created = True
                response.presented_verdict = encode.VERDICT[changed.presented]
            self._fill_login(response, call, changed)

        return Change(
            lambda reply: self._logins.authenticate(
                call, token, login, reply, elevates=request.elevate, or_create=request.or_create, choice=choice
            ),
            fill,
            note_change,
        )

    @changing(pb.RollSessionResponse)
    def RollSession(self, call: Call, request: pb.RollSessionRequest) -> Change[ChangeResult]:
        """Replace the token at a privilege change."""
        token = decode.token(request.token)

        def fill(response: pb.RollSessionResponse, changed: ChangeResult) -> None:
            response.verdict = encode.VERDICT[changed.verdict]
            self._fill_token(response, call, changed)

        return Change(lambda reply: self._logins.roll(call, token, reply), fill, note_change)

    def _fill_login(
        self, response: pb.CreateSessionResponse | pb.AuthenticateSessionResponse, call: Call, changed: ChangeResult
    ) -> None:
        if changed.evicted:
            response.evicted_session_ids.extend(map(str, changed.evicted))
        if changed.limit is not None:
            encode.fill_limit(response.limit, changed.limit)
        self._fill_token(response, call, changed)

    def _fill_token(self, response: _TokenResponse, call: Call, changed: ChangeResult) -> None:
        response.consistency_token = self._calls.consistency_token(changed.revision)
        if changed.session is None or changed.token is None or changed.csrf is None:
            return
        encode.fill_session(response.session, changed.session)
        response.token = changed.token.reveal()
        response.csrf_token = changed.csrf.reveal()
        cookies.fill_token(response.cookies, call.policy.cookie, changed.session, changed.token, changed.at)
