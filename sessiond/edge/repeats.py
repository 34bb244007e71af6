"""Decisions about requests that look like earlier ones: most requests of a client differ in nothing that matters.

A decision that let a request pass depends on the route, on a few facts of the request, and on the session as the
authority knows it. So it holds for the next request with the same facts, if asking about the session again would give
the same answer. That is asked each time, and counts as the client's activity. Everything else is decided anew.
"""

from __future__ import annotations

from hashlib import blake2b

from sessiond.domain.call import Caller
from sessiond.domain.immutable import immutable
from sessiond.domain.values import Entropy
from sessiond.edge.check import Decision, is_forged
from sessiond.edge.local import Repeatable
from sessiond.edge.routes import CsrfCheck, Route
from sessiond.system.lru import Lru
from sessiond_client.gateway.actions import Action
from sessiond_client.gateway.request import WebRequest
from sessiond_client.gateway.settings import GatewaySettings, matches

__all__ = ["Key", "RepeatedDecisions"]

Key = tuple[Route, str, int, bytes]
_MOST_BYTES = 4_096
"""Decisions with more text are decided anew, so that clients with many cookies cannot fill the memory."""


@immutable
class _Repeated:
    decision: Decision
    question: Repeatable


class RepeatedDecisions:
    """The latest decisions that let a request pass, of one gateway with these settings, at most `capacity`.

    The key has the route, the caller, as it is since its latest change, and a digest of the facts, keyed with a random
    value of this process, so that no token is kept and nobody can construct two requests with one digest.
    """

    def __init__(self, settings: GatewaySettings, entropy: Entropy, capacity: int = 10_000) -> None:
        self._settings = settings
        self._secret = entropy(32)
        self._decisions: Lru[Key, _Repeated] = Lru(capacity)

    def key_of(self, request: WebRequest, route: Route, caller: Caller) -> Key | None:
        """Return the key of a request; None if it must be decided anew, because more facts of it matter."""
        settings, cookies = self._settings, request.headers("cookie")
        if not cookies or route.csrf is CsrfCheck.TOKEN:
            return None
        if matches(request.path, settings.ignored_paths) or matches(request.path, settings.passive_paths):
            return None
        if route.csrf is CsrfCheck.ORIGIN and is_forged(request, settings):
            return None
        agent = tuple(request.headers("user-agent")[:1])
        facts = (request.peer, request.certificate_thumbprint, request.is_safe, agent, tuple(cookies))
        digest = blake2b(repr(facts).encode(errors="surrogatepass"), digest_size=16, key=self._secret).digest()
        return route, caller.name, caller.version, digest

    def find(self, key: Key) -> Decision | None:
        """Return the decision about a request with this key, if it still holds; this counts as the client's activity.

        None: decide anew.
        """
        known = self._decisions.get(key)
        return known.decision if known is not None and known.question.is_same_again() else None

    def remember(self, key: Key, decision: Decision, question: Repeatable) -> None:
        """Remember a decision, for which one question was asked, if it let the request pass."""
        if decision.action is Action.PROCEED and _length(decision) <= _MOST_BYTES:
            self._decisions.put(key, _Repeated(decision, question))


def _length(decision: Decision) -> int:
    return sum(len(name) + len(value) for name, value in (*decision.upstream, *decision.response))
