"""The authorities that sign the certificates of clients: which are trusted now, and which are not any more.

gRPC looks at them during a handshake only, so a connection outlives the removal of the authority that signed its
certificate.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from sessiond.access.pem import certificates_in

__all__ = ["ClientAuthorities"]


class ClientAuthorities:
    """Knows which authorities were removed since the start. `text`: the first ones, in PEM form; None: there are none.

    What was signed by an intermediate authority that is not in the file is never found: gRPC does not show it.
    """

    def __init__(self, text: bytes | None = None) -> None:
        self._current = _parsed(text)
        self._removed: list[x509.Certificate] = []

    def replace(self, text: bytes | None) -> bool:
        """Trust these from now on. Return whether others were removed."""
        before, self._current = self._current, _parsed(text)
        gone = [one for one in before if one not in self._current]
        self._removed = [one for one in (*self._removed, *gone) if one not in self._current]
        return bool(gone)

    def have_withdrawn(self, certificate: bytes) -> bool:
        """Return whether a certificate, in PEM form, was signed by one of those that were removed, and by no other."""
        if not self._removed:
            return False
        try:
            found, *_ = certificates_in(certificate)
        except ValueError:
            return True
        return _has_signed(self._removed, found) and not _has_signed(self._current, found)


def _parsed(text: bytes | None) -> Sequence[x509.Certificate]:
    return [] if text is None else certificates_in(text)


def _has_signed(authorities: Iterable[x509.Certificate], certificate: x509.Certificate) -> bool:
    for authority in authorities:
        try:
            certificate.verify_directly_issued_by(authority)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            continue
        return True
    return False
