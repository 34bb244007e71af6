"""Callers: deriving the identity that the authority uses from what the transport knows about a call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from sessiond.access.audit import NO_AUDIT, Audit
from sessiond.access.identity import AuthContext, CertificateReader
from sessiond.access.streams import OpenStreams
from sessiond.domain.access import ANY_APPLICATION, CallerRecord, CredentialKind, Role
from sessiond.domain.call import PEER_KEY, Caller
from sessiond.domain.errors import AuthorityError, Unauthenticated, Unavailable
from sessiond.domain.identity import ClientCertificate
from sessiond.domain.values import Instant

__all__ = ["Book", "Callers", "CallersOfWorkers"]

_ANY_CALLER = "caller"
_WORKER = "(worker)"
"""No caller can have this name."""
_OF_A_WORKER = frozenset({(ANY_APPLICATION, Role.VALIDATOR)})


class Book(Protocol):
    """The callers that are configured; see `CallerBook`."""

    on_change: Callable[[frozenset[str]], None]

    def identify(
        self,
        metadata: Sequence[tuple[str, str | bytes]] | None,
        proofs: Iterable[tuple[CredentialKind, str]] = (),
        proved_until: Instant | None = None,
    ) -> CallerRecord | None:
        """Return who is calling; None if no caller is configured. Raises `Unauthenticated` and `Unavailable`."""

    def revision_of(self, name: str) -> int | None:
        """Return the revision of a caller's latest change; None if there is no such caller."""

    @property
    def is_open(self) -> bool:
        """Whether no caller is configured."""


class Callers:
    """Identifies callers. Without a book, or with an empty one, all share one name and may do everything.

    `reads_certificates`: whether connections have certificates of clients, for which `identify` then needs the
    properties of the connection. `audit`: where the calls of these callers are recorded.
    """

    def __init__(self, book: Book | None = None, *, reads_certificates: bool = False, audit: Audit = NO_AUDIT) -> None:
        self.reads_certificates = reads_certificates
        self.audit = audit
        self._certificates = CertificateReader()
        self._book = book
        self.open_streams = OpenStreams(self._refusal)
        if book is not None:
            book.on_change = self._end_streams

    def identify(
        self, peer: str, metadata: Sequence[tuple[str, str | bytes]] | None, proved: AuthContext | None = None
    ) -> Caller:
        """Return the caller. This is evaluated before any other part of a call, the fast path included.

        `proved` are the properties of the connection, from which only what the handshake has proved is taken. Raises
        `Unauthenticated` and `Unavailable`.
        """
        certificate = self._certificates.read(proved)
        record = None
        if self._book is not None and certificate is None:
            record = self._book.identify(metadata)
        elif self._book is not None and certificate is not None:
            # The connection may outlive the certificate.
            record = self._book.identify(metadata, _proofs(certificate), certificate.not_after)
        if record is None:
            return Caller(_ANY_CALLER, peer, metadata or (), certificate=certificate)
        return Caller(record.name, peer, metadata or (), record.grants, record.revision, certificate)

    def peer_of(self, peer: str, metadata: Sequence[tuple[str, str | bytes]] | None) -> str:
        """Return the peer that a caller has, or would have if it could be identified."""
        return peer

    def _refusal(self, caller: Caller) -> AuthorityError | None:
        """Return why a stream of this caller must end; None if the caller is as it was when it was identified."""
        if self._book is None:
            return None
        now = self._book.revision_of(caller.name)
        if self._book.is_open if not caller.version else now == caller.version:
            return None
        if caller.version and now is not None:
            # Clients resume after that, with a key that may still be good.
            return Unavailable("this caller was changed; call again")
        return Unauthenticated("this caller was revoked, or the call has none; call again with the key of a caller")

    def _end_streams(self, changed: frozenset[str]) -> None:
        # The streams of those who called before there were callers end too.
        self.open_streams.end({*changed, _ANY_CALLER})


class CallersOfWorkers(Callers):
    """Identifies callers whose calls arrive through workers. Only for a socket that nobody else can open.

    So what one connection may cost the others is limited as without workers. A worker says on which connection a call
    arrived; a call without that is its own, the stream that feeds its memory, for which it needs no key.
    """

    def identify(
        self, peer: str, metadata: Sequence[tuple[str, str | bytes]] | None, proved: AuthContext | None = None
    ) -> Caller:
        """Return the caller; its peer is the connection to the worker. Raises `Unauthenticated` and `Unavailable`."""
        if through := _peer_behind_worker(metadata):
            return super().identify(through, metadata)
        return Caller(_WORKER, peer, metadata or (), _OF_A_WORKER)

    def peer_of(self, peer: str, metadata: Sequence[tuple[str, str | bytes]] | None) -> str:
        """Return the connection to the worker."""
        return _peer_behind_worker(metadata) or peer

    def _refusal(self, caller: Caller) -> AuthorityError | None:
        return None if caller.name == _WORKER else super()._refusal(caller)


def _peer_behind_worker(metadata: Sequence[tuple[str, str | bytes]] | None) -> str:
    """Return on which connection a worker received a call; empty if the call is its own."""
    return next((value for key, value in metadata or () if key == PEER_KEY and isinstance(value, str)), "")


def _proofs(certificate: ClientCertificate) -> Iterator[tuple[CredentialKind, str]]:
    """Return what a certificate proves: its URIs, SPIFFE IDs included, and its DNS names."""
    for name in (*certificate.uris, *certificate.dns_names):
        yield CredentialKind.CERTIFICATE, name
