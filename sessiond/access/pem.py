"""Reading certificates."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from cryptography import x509
from cryptography.utils import CryptographyDeprecationWarning

__all__ = ["certificates_in"]


def certificates_in(text: bytes) -> Sequence[x509.Certificate]:
    """Return the certificates of a text in PEM form, at least one. Raise ValueError if one cannot be parsed.

    A certificate may break a rule of RFC 5280 that the library does not enforce yet, such as a serial number that is
    not positive. The library warns of that, on standard error; whoever shows us a certificate must not write there.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CryptographyDeprecationWarning)
        try:
            return x509.load_pem_x509_certificates(text)
        except x509.InvalidVersion as error:
            raise ValueError(str(error)) from error
