"""TLS for gRPC servers: credentials that follow the files of a certificate."""

from __future__ import annotations

import threading
from typing import Any

import grpc

from sessiond.access.tls import TlsMaterial
from sessiond.access.tls_watch import TlsWatch

__all__ = ["server_credentials"]


def server_credentials(watch: TlsWatch) -> grpc.ServerCredentials:
    """Return the credentials of a server whose watched files have a certificate and a key.

    Each new connection gets the newest files; connections that are open keep theirs. If the files have authorities,
    clients must show a certificate that one of them signed. The oldest version of TLS is 1.2, gRPC's own minimum.
    """
    fetcher: Any = _Fetcher(watch)  # grpcio's types do not know that it may return None
    return grpc.dynamic_ssl_server_credentials(
        _configuration(watch.current),
        fetcher,
        require_client_authentication=watch.current.authorities is not None,
    )


class _Fetcher:
    """Called by gRPC's threads before each handshake: the configuration if it has changed, else None."""

    def __init__(self, watch: TlsWatch) -> None:
        self._watch = watch
        self._given = watch.current
        self._lock = threading.Lock()

    def __call__(self) -> grpc.ServerCertificateConfiguration | None:
        with self._lock:
            current = self._watch.current
            if current is self._given:
                return None
            self._given = current
        return _configuration(current)


def _configuration(material: TlsMaterial) -> grpc.ServerCertificateConfiguration:
    if material.key is None or material.certificate is None:
        raise ValueError("a server needs a certificate and its key")
    return grpc.ssl_server_certificate_configuration([(material.key, material.certificate)], material.authorities)
