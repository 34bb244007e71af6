"""Callers: deriving the identity that the authority uses from what the transport knows about a call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from sessiond.access.audit import NO_AUDIT, Audit
from sessiond.access.authorities import ClientAuthorities
from sessiond.access.identity import AuthContext, CertificateReader
from sessiond.access.proof import Identified, sends_key
from sessiond.access.streams import OpenStreams
from sessiond.domain.access import ANY_APPLICATION, CredentialKind, Role
from sessiond.domain.call import FORWARDED_KEY, PEER_KEY, Caller
from sessiond.domain.errors import AuthorityError, Unauthenticated, Unavailable
from sessiond.domain.identity import ClientCertificate
from sessiond.domain.values import Instant

__all__ = ["Book", "Callers", "CallersOfSocket", "CallersOfWorkers"]

_ANY_CALLER = "caller"
_WORKER = "(worker)"
"""No caller can have this name."""
_OF_A_WORKER = frozenset({(ANY_APPLICATION, Role.VALIDATOR)})


class Book(Protocol):
    """The callers that are configured; see `CallerBook`."""

    def listen(self, listener: Callable[[frozenset[str]], None]) -> None:
        """Have `listener` called with the names of callers that have changed or gone, after each change."""

    def identify(
        self,
        metadata: Sequence[tuple[str, str | bytes]] | None,
        proofs: Iterable[tuple[CredentialKind, str]] = (),
        proved_until: Instant | None = None,
    ) -> Identified | None:
        """Return who is calling; None if no caller is configured. Raises `Unauthenticated` and `Unavailable`."""

    def identify_on_socket(
        self, metadata: Sequence[tuple[str, str | bytes]] | None, name: str, *, is_forwarded: bool
    ) -> Identified | None:
        """Return who is calling on the socket of the caller `name`; see `identify`."""

    def revision_of(self, name: str) -> int | None:
        """Return the revision of a caller's latest change; None if there is no such caller."""

    def now(self) -> Instant:
        """Return the time with which the ends of credentials are compared."""

    @property
    def is_open(self) -> bool:
        """Whether no caller is configured."""


class Callers:
    """Identifies callers. Without a book, or with an empty one, all share one name and may do everything.

    `reads_certificates`: whether connections have certificates of clients, for which `identify` then needs the
    properties of the connection. `authorities`: the certificates, in PEM form, of those that sign them. `audit`: where
    the calls of these callers are recorded.
    """

    def __init__(
        self,
        book: Book | None = None,
        *,
        reads_certificates: bool = False,
        authorities: bytes | None = None,
        audit: Audit = NO_AUDIT,
    ) -> None:
        self.reads_certificates = reads_certificates
        self.audit = audit
        self._certificates = CertificateReader(ClientAuthorities(authorities))
        self._book = book
        self.open_streams = OpenStreams(self._refusal)
        if book is not None:
            book.listen(self._end_streams)

    def identify(
        self, peer: str, metadata: Sequence[tuple[str, str | bytes]] | None, proved: AuthContext | None = None
    ) -> Caller:
        """Return the caller. This is evaluated before any other part of a call, the fast path included.

        `proved` are the properties of the connection, from which only what the handshake has proved is taken, and
        nothing for a call that a sidecar has marked as forwarded: the certificate is the sidecar's then. Raises
        `Unauthenticated` and `Unavailable`.
        """
        certificate = self._certificates.read(proved)
        if certificate is not None and _is_forwarded(metadata):
            certificate = None
        found = None
        if self._book is not None and certificate is None:
            found = self._book.identify(metadata)
        elif self._book is not None and certificate is not None:
            # The connection may outlive the certificate.
            found = self._book.identify(metadata, _proofs(certificate), certificate.not_after)
        return _caller(found, peer, metadata, certificate)

    def peer_of(self, peer: str, metadata: Sequence[tuple[str, str | bytes]] | None) -> str:
        """Return the peer that a caller has, or would have if it could be identified."""
        return peer

    def _refusal(self, caller: Caller) -> AuthorityError | None:
        """Return why a stream of this caller must end; None if the caller is as it was when it was identified."""
        if self._book is None:
            return None
        now = self._book.revision_of(caller.name)
        if self._book.is_open if not caller.version else now == caller.version:
            return self._expiry(caller)
        if caller.version and now is not None:
            # Clients resume after that, with a key that may still be good.
            return Unavailable("this caller was changed; call again")
        return Unauthenticated(
            "this caller was revoked, or the call has no credentials; call again with the key of a caller"
        )

    def _expiry(self, caller: Caller) -> AuthorityError | None:
        """Return why a caller that has not changed is not proved any more; None if it is."""
        # Clients resume after both, and may have another key or certificate by now.
        if self._book is not None and caller.until is not None and self._book.now() >= caller.until:
            return Unavailable("the key or certificate that this stream was opened with has expired; call again")
        shown = None if sends_key(caller.metadata) else caller.certificate
        if caller.version and shown is not None and self._certificates.is_withdrawn(shown):
            return Unavailable("the CA of this connection's certificate is not trusted any more; call again")
        return None

    def trust(self, authorities: bytes | None) -> None:
        """Trust the certificates of clients that these authorities have signed, in PEM form, and no others.

        The streams of callers that were known by another's certificate end.
        """
        if self._certificates.trust(authorities):
            self.open_streams.look()

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


class CallersOfSocket(Callers):
    """Identifies callers on a socket of one caller: its permissions decide who can connect, and that is the caller.

    `name` is the caller, and `path` that of the socket. A key in a call counts before the socket.
    """

    def __init__(self, book: Book, name: str, path: str, audit: Audit = NO_AUDIT) -> None:
        super().__init__(book, audit=audit)
        self._of_socket = book.identify_on_socket
        self._name = name
        self._peer = f"unix:{path}"

    def identify(
        self, peer: str, metadata: Sequence[tuple[str, str | bytes]] | None, proved: AuthContext | None = None
    ) -> Caller:
        """Return the caller. Raises `Unauthenticated` and `Unavailable`.

        For gRPC all Unix sockets are one peer; here each is one, so that they do not share what one peer may have.
        """
        found = self._of_socket(metadata, self._name, is_forwarded=_is_forwarded(metadata))
        return _caller(found, self._peer, metadata)

    def peer_of(self, peer: str, metadata: Sequence[tuple[str, str | bytes]] | None) -> str:
        """Return the socket."""
        return self._peer


def _is_forwarded(metadata: Sequence[tuple[str, str | bytes]] | None) -> bool:
    return any(key == FORWARDED_KEY for key, _ in metadata or ())


def _caller(
    found: Identified | None,
    peer: str,
    metadata: Sequence[tuple[str, str | bytes]] | None,
    certificate: ClientCertificate | None = None,
) -> Caller:
    """Return whom a call is from; anyone if no caller is configured."""
    if found is None:
        return Caller(_ANY_CALLER, peer, metadata or (), certificate=certificate)
    record = found.record
    return Caller(record.name, peer, metadata or (), record.grants, record.revision, certificate, found.until)


def _peer_behind_worker(metadata: Sequence[tuple[str, str | bytes]] | None) -> str:
    """Return on which connection a worker received a call; empty if the call is its own."""
    return next((value for key, value in metadata or () if key == PEER_KEY and isinstance(value, str)), "")


def _proofs(certificate: ClientCertificate) -> Iterator[tuple[CredentialKind, str]]:
    """Return what a certificate proves: its URIs, SPIFFE IDs included, and its DNS names."""
    for name in (*certificate.uris, *certificate.dns_names):
        yield CredentialKind.CERTIFICATE, name
