"""What a transport has proved about a caller."""

from __future__ import annotations

from dataclasses import field

from sessiond.domain.immutable import immutable
from sessiond.domain.values import Instant

__all__ = ["ClientCertificate"]


@immutable
class ClientCertificate:
    """The certificate that a caller has shown, and that an authority of the server's has signed.

    Only names in a form that has one meaning are kept (see `access.identity`), so a certificate may have none.

    fingerprint  SHA-256 of the certificate, in hexadecimal
    not_after    when it ends. The connection may live longer, so whoever trusts the names must compare this
    uris         its URIs, as they are
    dns_names    its DNS names, in lower case
    text         the certificate in PEM form
    """

    fingerprint: str
    not_after: Instant
    uris: tuple[str, ...] = ()
    dns_names: tuple[str, ...] = ()
    text: bytes = field(default=b"", repr=False)

    @property
    def spiffe_id(self) -> str:
        """Return its SPIFFE ID, such as `spiffe://example.org/shop`; empty if it has none."""
        return next((uri for uri in self.uris if uri.startswith("spiffe:")), "")
