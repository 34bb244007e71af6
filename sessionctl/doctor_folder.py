"""Checks that need no server: the configuration, the data folder, the keys, the certificate and the store."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import stat
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sessionctl.checking import missing_files, obstacles
from sessionctl.findings import Finding, ok, problem, refused, warning
from sessionctl.screen import rfc3339
from sessiond.config import Config, departures, unknown_variables
from sessiond.config.data_folder import database_in, key_file_in
from sessiond.config.store_address import PostgresAddress
from sessiond.domain.values import Instant
from sessiond.inspection import (
    MOST_CONNECTIONS,
    BadKeyFile,
    BadTls,
    HeldKeys,
    PostgresFacts,
    StoreRefused,
    StoreUnavailable,
    certificate_of,
    check_folder,
    database_of,
    held_keys,
    postgres_of,
)
from sessiond_client.targets import is_local

__all__ = [
    "check_certificate",
    "check_configuration",
    "check_data_folder",
    "check_store",
    "check_variables",
    "key_age",
]

_OLDEST_KEY = timedelta(days=730)
"""NIST SP 800-57 part 1, section 5.3.6: a symmetric key encrypts for at most two years."""
_SHORT_KEY = 8
_OLDEST_POSTGRES = 140000
_FAR_BEHIND = 20_000
_CLOSE_SHARE = 0.9
_WEEK = timedelta(days=7)
_NO_KEYS: HeldKeys = ("", None)
_EVERYWHERE = ("0.0.0.0", "::", "")  # noqa: S104 - compared, not listened on


def check_configuration(config: Config) -> Iterator[Finding]:
    """What `check-config` finds in a configuration without errors."""
    name = str(config.files[0]) if config.files else "the default configuration"
    found = [
        problem("configuration", text, "correct it; the server does not start with it") for text in obstacles(config)
    ]
    found += [problem("configuration", text, "put the file there") for text in missing_files(config)]
    yield from found
    weak = departures(config)
    if weak:
        count = "1 setting is" if len(weak) == 1 else f"{len(weak)} settings are"
        shown = f"`sessionctl check-config {name}` shows them" if config.files else "see `sessionctl policies`"
        yield warning("configuration", f"{count} weaker than OWASP, ASVS or NIST recommend in {name}", shown)
    elif not found:
        yield ok("configuration", f"{name} has no error")


def check_variables(environment: Mapping[str, str]) -> Iterator[Finding]:
    """Environment variables that look as if they set something."""
    for variable, meant in sorted(unknown_variables(environment).items()):
        remedy = f"did you mean {meant}? Otherwise unset it" if meant else "unset it"
        yield warning("environment", f"the variable {variable} sets nothing", remedy)


def check_data_folder(config: Config) -> Iterator[Finding]:
    """Who may use the folder and the files in it."""
    folder = config.data
    try:
        found = folder.stat()
    except OSError as error:
        yield warning(
            "folder",
            f"there is no data folder {folder} ({error.strerror})",
            "name the server's with --data or --config; the first start of a server creates it",
        )
        return
    if not stat.S_ISDIR(found.st_mode):
        yield problem("folder", f"{folder} is not a folder", "choose another with --data or `server.data`")
        return
    try:
        check_folder(folder, found.st_mode)
    except StoreRefused as error:
        yield refused("folder", str(error))
    else:
        yield ok("folder", f"{folder} has mode {stat.S_IMODE(found.st_mode):04o}")
    if not os.access(folder, os.X_OK):
        return  # of another user
    for path in (database_in(folder), key_file_in(folder)):
        owner = path.lstat().st_uid if os.path.lexists(path) else found.st_uid
        if owner != found.st_uid:
            yield problem(
                "folder",
                f"{path} belongs to user {owner} and its folder to user {found.st_uid}, so the server cannot open it",
                f"run: chown {found.st_uid} {path}",
            )


def check_store(config: Config, now: datetime, *, running: bool) -> Iterator[Finding]:
    """The keys and the database, and whether a server can use them together. `running`: a server uses them now."""
    address, facts = config.store, None
    try:
        if address is not None:
            facts = asyncio.run(postgres_of(address))
    except StoreUnavailable as error:
        yield problem("store", str(error), "is it running, and is the address right?")
    except StoreRefused as error:
        yield refused("store", str(error))
    is_new = not database_in(config.data).exists() if address is None else facts is not None and not facts.version
    keys, found = _keys(config, is_new=is_new)
    yield found
    if address is not None and facts is not None:
        yield from _postgres(address, facts, keys, now)
    elif address is None and not running:  # a running server holds the database, and answers for it
        yield from _embedded(config.data, keys, now)


def _keys(config: Config, *, is_new: bool) -> tuple[HeldKeys, Finding]:
    """The keys that the server has. `is_new`: there is no database yet, so that there need be no keys."""
    path = key_file_in(config.data)
    if is_new and config.keyring_file is None and not config.keyring_command and not os.path.lexists(path):
        return _NO_KEYS, ok("keys", f"the first start creates {path}")
    try:
        name, fingerprints = keys = held_keys(config)
    except BadKeyFile as error:
        return _NO_KEYS, refused("keys", str(error))
    if fingerprints is None:
        return keys, ok("keys", "they come from server.keyring_command, which was not run")
    count = "1 key" if len(fingerprints) == 1 else f"{len(fingerprints)} keys"
    return keys, ok("keys", f"{count} in {name.removeprefix('the key file ')}; the first is {_short(fingerprints[0])}")


def key_age(since: datetime | None, now: datetime) -> Iterator[Finding]:
    """How long the sealing key has sealed."""
    if since is None:
        return
    days = (now - since) // timedelta(days=1)
    if now - since > _OLDEST_KEY:
        yield warning(
            "keys",
            f"the sealing key has been in use for {days} days; NIST SP 800-57 recommends two years at most",
            "rotate it: sessionctl keyring add, then promote (docs/how-to/rotate-keys.md)",
        )
    else:
        yield ok("keys", f"the sealing key has been in use for {days} days")


def check_certificate(config: Config, now: datetime) -> Iterator[Finding]:
    """The server's certificate: whether it can be used, how long, and for which names."""
    try:
        found = certificate_of(config, Instant(int(now.timestamp() * 1000)))
    except BadTls as error:
        yield refused("certificate", str(error))
        return
    if found is None or found.not_after is None or found.not_before is None:
        return
    begin, end = (datetime.fromtimestamp(moment / 1000, UTC) for moment in (found.not_before, found.not_after))
    if end - now < min(_WEEK, (end - begin) / 3):  # as the alert SessiondCertificateEnds
        yield warning(
            "certificate",
            f"{config.tls_certificate} ends at {rfc3339(end)}",
            "replace the file and its key; the server reads them again by itself",
        )
    else:
        yield ok("certificate", f"{config.tls_certificate} is valid until {rfc3339(end)}")
    yield from _names(config, found.names)


def _names(config: Config, names: tuple[str, ...]) -> Iterator[Finding]:
    host = config.listen.rpartition(":")[0].strip("[]")
    remedy = "have one issued with the names under which clients know the server"
    if not names:
        yield problem("certificate", f"{config.tls_certificate} has no subject alternative name", remedy)
    elif host not in _EVERYWHERE and not is_local(config.listen) and not any(_covers(name, host) for name in names):
        shown = ", ".join(names)
        yield warning(
            "certificate", f"{config.tls_certificate} is for {shown}, and the server listens at {host}", remedy
        )


def _covers(name: str, host: str) -> bool:
    try:
        return ipaddress.ip_address(name) == ipaddress.ip_address(host)
    except ValueError:
        if name.startswith("*."):
            return name[2:].lower() == host.partition(".")[2].lower()
        return name.lower() == host.lower()


def _embedded(folder: Path, keys: HeldKeys, now: datetime) -> Iterator[Finding]:
    try:
        found = database_of(folder, keys)
    except StoreRefused as error:
        yield refused("store", str(error))
        return
    if found is None:
        yield ok("store", f"there is no database in {folder}; the first start creates it")
        return
    if found.version < found.newest:
        yield warning(
            "store",
            f"schema version {found.version}; the next start migrates it to {found.newest}",
            "back up the data folder before you start the server",
        )
    else:
        yield ok("store", f"schema version {found.version}, as this sessiond has")
    if found.pending_bytes:
        yield ok("store", "the last server was killed; the next start takes its last changes from the write-ahead log")
    yield from key_age(_moment(found.sealing_since), now)


def _postgres(address: PostgresAddress, found: PostgresFacts, keys: HeldKeys, now: datetime) -> Iterator[Finding]:
    if found.number < _OLDEST_POSTGRES:
        yield problem("store", f"{address} is Postgres {found.server}", "use Postgres 14 or newer")
    else:
        schema = f"schema version {found.version}" if found.version else "no tables yet"
        yield ok("store", f"{address} is Postgres {found.server}, with {schema}")
    if 0 < found.version < found.newest:
        yield warning(
            "store",
            f"schema version {found.version}; the next start of a replica migrates it to {found.newest}",
            "back up the database before you start one",
        )
    yield from _durability(found)
    yield from _connections(found)
    yield from _recorded_keys(address, found, keys)
    yield from key_age(_moment(found.sealing_since), now)
    yield from _replicas(found)


def _durability(found: PostgresFacts) -> Iterator[Finding]:
    for name, value, is_bad in (
        ("synchronous_commit", found.synchronous_commit, found.synchronous_commit == "off"),
        ("fsync", "on" if found.fsync else "off", not found.fsync),
    ):
        if is_bad:
            yield problem(
                "store",
                f"{name} is {value}: a crash of the database loses logins and revocations that were acknowledged",
                f"set {name} = on for this database, and for its user",
            )
        else:
            yield ok("store", f"{name} is {value}")


def _connections(found: PostgresFacts) -> Iterator[Finding]:
    replicas = max(1, len(found.replicas))
    need = MOST_CONNECTIONS * replicas
    text = f"{found.open_connections} of {found.connections} connections are open; " + (
        f"{replicas} replicas may need {need}" if replicas > 1 else f"a replica may need {need}"
    )
    remedy = "raise max_connections, or put a PgBouncer in between (docs/how-to/run-replicas.md)"
    if found.connections < need:
        yield problem("store", text, remedy)
    elif found.open_connections > _CLOSE_SHARE * found.connections:
        yield warning("store", text, remedy)
    else:
        yield ok("store", text)


def _recorded_keys(address: PostgresAddress, found: PostgresFacts, keys: HeldKeys) -> Iterator[Finding]:
    name, held = keys
    if not held or not found.keys or found.keys[0] in held:
        return
    short = _short(found.keys[0])
    if any(key in held for key in found.keys):
        yield warning(
            "keys",
            f"{name} lacks the sealing key {short} of {address}; a replica may get it through the database",
            "see `sessionctl keyring status`, or copy the key file of another replica",
        )
    else:
        yield problem(
            "keys",
            f"{name} has none of the keys of {address}, whose sealing key is {short}: it is another file, or too old",
            "copy the key file of a running replica, or restore it from a backup",
        )


def _replicas(found: PostgresFacts) -> Iterator[Finding]:
    for replica in found.replicas:
        if found.keys and replica.keys and found.keys[0] not in replica.keys:
            yield problem(
                "replicas",
                f"{replica.name} lacks the sealing key {_short(found.keys[0])}, and refuses tokens of the others",
                "see `sessionctl keyring status`",
            )
        if replica.behind > _FAR_BEHIND:
            yield warning(
                "replicas",
                f"the cache of {replica.name} is {replica.behind:,} revisions behind the log",
                "look at its log and at the load of its machine",
            )
    policies = {replica.policies for replica in found.replicas if replica.policies}
    names = ", ".join(replica.name for replica in found.replicas)
    if len(policies) > 1:
        yield problem(
            "replicas",
            f"the replicas have different policies: {names}",
            "give them the same configuration, and run `sessionctl reload` on each machine",
        )
    elif found.replicas:
        furthest = max(replica.behind for replica in found.replicas)
        count = "1 runs" if len(found.replicas) == 1 else f"{len(found.replicas)} run"
        yield ok("replicas", f"{count}: {names}; at most {furthest:,} revisions behind")


def _short(fingerprint: bytes) -> str:
    return fingerprint.hex()[:_SHORT_KEY]


def _moment(instant: Instant | None) -> datetime | None:
    return None if instant is None else datetime.fromtimestamp(instant / 1000, UTC)
