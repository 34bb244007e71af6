"""What keeps a server from starting although each setting is right by itself, and the files that settings name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sessiond_client.targets import is_local

if TYPE_CHECKING:
    from sessiond.config.loading import Config

__all__ = ["Obstacle", "named_files", "remote_plaintext", "workers_need_port"]


class Obstacle(NamedTuple):
    """A setting with which a server does not start, and the remedy."""

    key: str
    remedy: str

    def text(self, config: Config) -> str:
        """Return where it is set, the key and the remedy."""
        return f"{config.server_origins[self.key]}: {self.key}: {self.remedy}"


def remote_plaintext(config: Config) -> Iterator[Obstacle]:
    """Yield each address on which tokens would be sent to other machines unencrypted, and nobody has allowed that."""
    if config.allow_remote_plaintext:
        return
    if not is_local(config.listen) and config.tls_certificate is None:
        yield Obstacle(
            "server.listen",
            f"{config.listen} can be reached from other machines, and tokens would be sent unencrypted: set "
            "server.tls.certificate and server.tls.key, listen on 127.0.0.1 or unix:PATH, or accept the risk with "
            "--allow-remote-plaintext",
        )
    if config.http_listen and not is_local(config.http_listen):
        yield Obstacle(
            "server.http_listen",
            f"{config.http_listen} can be reached from other machines, and tokens would be sent unencrypted: listen on "
            "127.0.0.1 or unix:PATH, or accept the risk with --allow-remote-plaintext",
        )


def workers_need_port(config: Config) -> Iterator[Obstacle]:
    """Yield what workers cannot do."""
    if not config.workers:
        return
    if config.listen.startswith("unix:"):
        yield Obstacle(
            "server.workers",
            f"is {config.workers}, and workers cannot share {config.listen}: listen on HOST:PORT, or set "
            "server.workers to 0",
        )
    if config.tls_certificate is not None:
        yield Obstacle(
            "server.workers",
            f"is {config.workers}, and workers do not serve TLS: remove server.tls and put a proxy that adds TLS in "
            "front, or set server.workers to 0",
        )


def named_files(config: Config) -> dict[str, Path]:
    """Return the files that must be there before the server starts, by the key that names each."""
    named = {
        "server.tls.certificate": config.tls_certificate,
        "server.tls.key": config.tls_key,
        "server.tls.client_ca": config.tls_client_ca,
        "server.keyring_file": config.keyring_file,
        "networks.operators": config.operators,
        "networks.countries": config.countries,
    }
    return {key: path for key, path in named.items() if path is not None}
