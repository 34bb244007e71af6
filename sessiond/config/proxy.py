"""`[applications.NAME.proxy]`: how proxies in front of an application use its sessions."""

from __future__ import annotations

from collections.abc import Mapping

from sessiond.domain.immutable import immutable

__all__ = ["ProxySettings", "change_proxies"]


@immutable
class ProxySettings:
    """How the proxies in front of one application use its sessions.

    A *path list* has paths without query. An entry that ends in `/` means everything below it, any other one exactly
    that path.

    login_path       the login page, to which pages that need a login redirect; empty: they get 401 instead
    trusted_origins  origins other than the application's own whose pages may send requests that have side effects
    csrf_exempt      path list: no protection from pages of other sites here, for requests that other servers send
    ignored_paths    path list: no session here at all, for static files
    passive_paths    path list: requests here do not count as activity
    public_paths     path list: served as for a guest while the authority cannot answer
    forward_cookie   whether the application gets the session cookie too; it does not need it
    """

    login_path: str = "/login"
    trusted_origins: tuple[str, ...] = ()
    csrf_exempt: tuple[str, ...] = ()
    ignored_paths: tuple[str, ...] = ()
    passive_paths: tuple[str, ...] = ()
    public_paths: tuple[str, ...] = ()
    forward_cookie: bool = False


def change_proxies(proxies: dict[str, ProxySettings], others: Mapping[str, ProxySettings]) -> dict[str, str]:
    """Put other settings in force. Return what changed, by application; those that are new or gone are not among it."""
    changed = {name: "proxy" for name, before in proxies.items() if others.get(name, before) != before}
    for application in proxies.keys() - others.keys():
        del proxies[application]
    # What is equal stays the same object: its gateway remembers changes of a moment ago.
    proxies.update({name: settings for name, settings in others.items() if proxies.get(name) != settings})
    return changed
