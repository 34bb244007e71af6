"""Envoy's external authorization: `envoy.service.auth.v3.Authorization`, with the rules of the gateway.

Envoy asks about each request and passes the answer on: identity headers for the application, cookies for the client.
See https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/ext_authz_filter. An answer without a
status would let the request pass, so each answer has one.
"""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import lru_cache
from hashlib import sha256
from typing import Any
from urllib.parse import unquote

from envoy.config.core.v3 import base_pb2
from envoy.service.auth.v3 import external_auth_pb2
from google.rpc import code_pb2

from sessiond.domain.call import Caller
from sessiond.edge.check import Decision
from sessiond.edge.routes import Route, route_of
from sessiond.rpc.server import FurtherService
from sessiond.system.ongoing import CALL_ID, sent_call_id, this_call
from sessiond_client.gateway.actions import Action
from sessiond_client.gateway.request import Headers, WebRequest

__all__ = ["SERVICE", "Decide", "ExternalAuthorization", "service", "web_request"]

SERVICE = external_auth_pb2.DESCRIPTOR.services_by_name["Authorization"].full_name
_OVERWRITE = base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD
_APPEND = base_pb2.HeaderValueOption.APPEND_IF_EXISTS_OR_ADD
_IF_ABSENT = base_pb2.HeaderValueOption.ADD_IF_ABSENT
_RESPONSE_ACTIONS = {"set-cookie": _APPEND, "vary": _APPEND, "cache-control": _IF_ABSENT}

_LONGEST_ROUTE = 512
"""Characters of settings that are kept. They are as the caller sent them, who could fill the memory otherwise."""

Decide = Callable[[WebRequest, Route, Caller], Awaitable[Decision]]


class ExternalAuthorization:
    """The service's methods. `decide` decides about a request of a route, on behalf of a caller.

    A route's requirements are in `context_extensions` of its `CheckSettings` (see `sessiond.edge.routes`).
    """

    def __init__(self, decide: Decide) -> None:
        self._decide = decide

    async def Check(self, request: Any, caller: Caller) -> bytes:  # noqa: N802 - the name in Envoy's contract
        """Decide about one request. Raise `InvalidField` if the route's settings are wrong: Envoy then denies it."""
        attributes = request.attributes
        asked = web_request(attributes)
        # Envoy gives each request an id, but calls without one.
        this_call().adopt(sent_call_id(asked.headers(CALL_ID)))
        decision = await self._decide(asked, _route(attributes.context_extensions), caller)
        response: bytes | None = decision.made.get(SERVICE)
        if response is None:
            response = decision.made[SERVICE] = _response(decision).SerializeToString()
        return response


def service(decide: Decide) -> FurtherService:
    """Return the service, for a server that serves it beside the contract's."""
    methods = {"Check": (external_auth_pb2.CheckRequest, ExternalAuthorization(decide).Check)}
    return FurtherService(SERVICE, methods)


def _route(settings: Mapping[str, str]) -> Route:
    """Return the route with these settings: there are few, and each is in many questions."""
    pairs = tuple(settings.items())
    if sum(len(name) + len(value) for name, value in pairs) > _LONGEST_ROUTE:
        return route_of(settings)
    return _known_route(pairs)


@lru_cache(maxsize=256)
def _known_route(pairs: tuple[tuple[str, str], ...]) -> Route:
    return route_of(dict(pairs))


def web_request(attributes: Any) -> WebRequest:
    """Return the web request that Envoy describes. Its peer is the client, as Envoy's listener determines it."""
    http = attributes.request.http
    path, _, query = http.path.partition("?")
    headers = _headers(http)
    return WebRequest(
        method=http.method,
        path=unquote(path, errors="replace"),
        query=query.partition("#")[0],
        host=http.host,
        peer=attributes.source.address.socket_address.address,
        headers=headers,
        is_handshake=_is_handshake(headers),
        certificate_thumbprint=_thumbprint(attributes.source.certificate),
    )


def _headers(http: Any) -> Headers:
    """Return what reads the values of a header. With `encode_raw_headers`, Envoy keeps several of one name apart."""
    raw = http.header_map.headers
    if not raw:
        plain = {name.lower(): (value,) for name, value in http.headers.items()}
        return lambda name: plain.get(name, ())
    found: dict[str, list[Any]] = {}
    for header in raw:
        found.setdefault(header.key.lower(), []).append(header)
    # Few of them are read.
    return lambda name: [one.value or one.raw_value.decode("latin-1") for one in found.get(name, ())]


def _is_handshake(headers: Headers) -> bool:
    # Envoy turns the extended CONNECT of HTTP/2 (RFC 8441) into an upgrade.
    return any("websocket" in value.lower() for value in headers("upgrade"))


def _thumbprint(certificate: str) -> bytes:
    """Return SHA-256 of the client's certificate, which Envoy sends as URL-encoded PEM; empty if there is none."""
    if not certificate:
        return b""
    try:
        return sha256(ssl.PEM_cert_to_DER_cert(unquote(certificate))).digest()
    except ValueError:
        return b"unreadable"  # not empty: a session that is bound to a certificate must not match


def _response(decision: Decision) -> Any:
    if decision.action is Action.PROCEED:
        response = external_auth_pb2.CheckResponse(status={"code": code_pb2.OK})
        _set(response.ok_response.headers, decision.upstream, {})
        response.ok_response.headers_to_remove.extend(decision.remove)
        _set(response.ok_response.response_headers_to_add, decision.response, _RESPONSE_ACTIONS)
        return response
    response = external_auth_pb2.CheckResponse(status={"code": code_pb2.PERMISSION_DENIED})
    denied = response.denied_response
    denied.status.code = decision.status
    denied.body = decision.body.decode()
    _set(denied.headers, decision.response, {"set-cookie": _APPEND, "vary": _APPEND})
    return response


def _set(headers: Any, values: Iterable[tuple[str, str]], actions: Mapping[str, Any]) -> None:
    for name, value in values:
        option = headers.add(append_action=actions.get(name, _OVERWRITE))
        option.header.key, option.header.value = name, value
