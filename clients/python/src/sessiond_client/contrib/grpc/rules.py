"""What both interceptors share: from a call to an exchange, and from a refusal to a status."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grpc

from sessiond_client.contrib.clients import split_options
from sessiond_client.gateway import Action, Exchange, Gateway, Refused, RouteRequirements, Steps, WebRequest, routes
from sessiond_client.gateway.settings import matches
from sessiond_client.guard import Closing
from sessiond_client.tokens import Token

__all__ = ["CLOSED", "OUTAGE", "TOKEN_METADATA", "Rules", "opening", "status_of", "trailing", "wrapped"]

TOKEN_METADATA = "x-session-token"  # noqa: S105 - the name of a header, not a token
"""The trailing metadata that has a new token."""

_STATUS = {
    Action.LOGIN: grpc.StatusCode.UNAUTHENTICATED,
    Action.STEP_UP: grpc.StatusCode.UNAUTHENTICATED,
    Action.COMPANION: grpc.StatusCode.PERMISSION_DENIED,
    Action.CSRF_ERROR: grpc.StatusCode.PERMISSION_DENIED,
    Action.AMBIGUOUS: grpc.StatusCode.UNAUTHENTICATED,
    Action.LOCKED: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Action.RETRY_LATER: grpc.StatusCode.UNAVAILABLE,
}
CLOSED = {
    Closing.ENDED: (grpc.StatusCode.UNAUTHENTICATED, "session_ended"),
    Closing.CHANGED: (grpc.StatusCode.UNAUTHENTICATED, "token_replaced"),
    Closing.SUSPECTED: (grpc.StatusCode.UNAUTHENTICATED, "step_up_required"),
    Closing.BLIND: (grpc.StatusCode.UNAVAILABLE, "unavailable"),
}


class Rules:
    """What both interceptors share."""

    def __init__(
        self, options: Mapping[str, Any], public_methods: Sequence[str], requirements: Mapping[str, RouteRequirements]
    ) -> None:
        wrong = [name for name in (*public_methods, *requirements) if not name.startswith("/")]
        if isinstance(public_methods, str) or wrong:
            raise ValueError(f"public_methods, requirements: {wrong[:1]} is wrong: write /package.Service/Method")
        settings, self.client_options = split_options(options)
        self.gateway = Gateway(self.client_options.get("application", ""), settings)
        self._public = tuple(public_methods)
        self._requirements = dict(requirements)

    def exchange(self, method: str, metadata: Any, peer: str) -> Exchange:
        """The exchange of one call."""
        values: dict[str, list[str]] = {}
        for key, value in metadata or ():
            if isinstance(value, str):
                values.setdefault(key.lower(), []).append(value)
        bearers = [text[7:].strip() for text in values.get("authorization", ()) if text[:7].lower() == "bearer "]
        return Exchange(
            self.gateway,
            WebRequest(
                method="POST",  # a call may have side effects
                path=method,
                peer=_address_of(peer),
                headers=lambda name: values.get(name, ()),
                token=Token(bearers[0]) if len(bearers) == 1 else None,
            ),
        )

    def requirements_of(self, method: str, handler: Any) -> RouteRequirements | None:
        """What a method needs; None: it is public."""
        if matches(method, self._public):
            return None
        decorated = getattr(handler, "sessiond_requirements", None)
        return self._requirements.get(method, decorated or RouteRequirements())


def _address_of(peer: str) -> str:
    """The address in gRPC's form of a peer, such as `ipv4:192.0.2.1:5000` or `ipv6:%5B::1%5D:5000`."""
    kind, _, rest = peer.partition(":")
    return rest.replace("%5B", "[").replace("%5D", "]") if kind in ("ipv4", "ipv6") else ""


def status_of(refused: Refused) -> tuple[grpc.StatusCode, str]:
    """The status of a call that is refused. Its message is a name for programs."""
    return _STATUS[refused.action], refused.refusal.error


OUTAGE = (grpc.StatusCode.UNAVAILABLE, "unavailable")


def opening(exchange: Exchange, requirements: RouteRequirements | None) -> Steps[None]:
    """Ask about the session, and raise `Refused` unless the method may run."""
    yield from exchange.open()
    if requirements is not None:
        yield from routes.require(exchange, requirements)
    elif (action := exchange.gate()) is not Action.PROCEED:
        raise exchange.refuse(action)


def trailing(exchange: Exchange, already: Any) -> tuple[tuple[str, str | bytes], ...]:
    """The trailing metadata: what the handler has set, and the new token."""
    token = exchange.renewed_token
    return (*(already or ()), *(((TOKEN_METADATA, token.reveal()),) if token is not None else ()))


Wrap = Callable[[Any, str, bool, bool], Any]


def wrapped(handler: Any, method: str, wrap: Wrap) -> Any:
    """A handler of the same kind around the function of another."""
    if handler is None:
        return None
    for streams_in in (False, True):
        for streams_out in (False, True):
            kind = f"{'stream' if streams_in else 'unary'}_{'stream' if streams_out else 'unary'}"
            function = getattr(handler, kind)
            if function is not None:
                make = getattr(grpc, f"{kind}_rpc_method_handler")
                return make(
                    wrap(function, method, streams_in, streams_out),
                    request_deserializer=handler.request_deserializer,
                    response_serializer=handler.response_serializer,
                )
    return handler
