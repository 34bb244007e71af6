"""Callers: deriving the identity that the authority uses from what the transport knows about a call."""

from __future__ import annotations

from collections.abc import Sequence

from sessiond.access.identity import AuthContext, CertificateReader
from sessiond.domain.call import Caller

__all__ = ["PEER_KEY", "Callers", "CallersOfWorkers"]

_ANY_CALLER = "caller"
PEER_KEY = "sessiond-peer"
"""The metadata in which a worker says on which connection it received a call. Nobody else may set it."""


class Callers:
    """Identifies callers. At present all callers that reach the port share one name and may do everything.

    `reads_certificates`: whether connections have certificates of clients, for which `identify` then needs the
    properties of the connection.
    """

    def __init__(self, *, reads_certificates: bool = False) -> None:
        self.reads_certificates = reads_certificates
        self._certificates = CertificateReader()

    def identify(
        self, peer: str, metadata: Sequence[tuple[str, str | bytes]] | None, proved: AuthContext | None = None
    ) -> Caller:
        """Return the caller. This is evaluated before any other part of a call, the fast path included.

        `proved` are the properties of the connection, from which only what the handshake has proved is taken.
        """
        return Caller(_ANY_CALLER, peer, metadata or (), self._certificates.read(proved))


class CallersOfWorkers(Callers):
    """Identifies callers whose calls arrive through workers. Only for a socket that nobody else can open.

    So what one connection may cost the others is limited as without workers.
    """

    def identify(
        self, peer: str, metadata: Sequence[tuple[str, str | bytes]] | None, proved: AuthContext | None = None
    ) -> Caller:
        """Return the caller; its peer is the connection to the worker."""
        for key, value in metadata or ():
            if key == PEER_KEY and isinstance(value, str):
                return super().identify(value, metadata)
        return super().identify(peer, metadata)
