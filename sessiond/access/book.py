"""The callers that are configured, in memory: who is calling, by what it proves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from sessiond.access.proof import AUTHORIZATION, Identified, sends_key
from sessiond.crypto.caller_keys import presented_key
from sessiond.domain.access import CallerRecord, Credential, CredentialKind
from sessiond.domain.errors import Unauthenticated, Unavailable, shown
from sessiond.domain.values import Instant
from sessiond.system.lru import Lru

__all__ = ["CallerBook"]

Proofs = tuple[tuple[CredentialKind, str], ...]

_BEARER = "bearer "
_FOREVER = 1 << 63
_REMEMBERED = 1_000
_UNCONFIRMED = "this replica has lost touch with the others, and cannot tell who may call; call again"


class CallerBook:
    """The callers of one authority. `now` is the authority's clock.

    Without any caller everyone who can connect may do everything. As soon as there is one, nobody else may do anything.
    """

    def __init__(self, records: Iterable[CallerRecord], now: Callable[[], Instant]) -> None:
        self._now = now
        self._records: dict[str, CallerRecord] = {}
        self._keys: dict[str, tuple[Identified, Credential]] = {}
        self._names: dict[tuple[CredentialKind, bytes], tuple[CallerRecord, Credential]] = {}
        self._proved: Lru[tuple[Proofs, Instant | None], Identified] = Lru(_REMEMBERED)
        self._listeners: list[Callable[[frozenset[str]], None]] = []
        self.is_confirmed: Callable[[], bool] = lambda: True
        """Whether no other process can have changed callers without notice."""
        self.replace(records)

    @property
    def is_open(self) -> bool:
        """Whether no caller is configured."""
        return not self._records

    @property
    def records(self) -> Sequence[CallerRecord]:
        """The callers, by name."""
        return [self._records[name] for name in sorted(self._records)]

    def replace(self, records: Iterable[CallerRecord]) -> None:
        """Replace all callers."""
        before, self._records = self._records, {record.name: record for record in records}
        self._index()
        changed = {name for name in before.keys() | self._records.keys() if before.get(name) != self._records.get(name)}
        if changed:
            # When the first caller is added, everyone else was somebody whom nobody knows any more.
            for listener in self._listeners:
                listener(frozenset(changed))

    def listen(self, listener: Callable[[frozenset[str]], None]) -> None:
        """Have `listener` called with the names of callers that have changed or gone, after each change."""
        self._listeners.append(listener)

    def apply(self, changed: Mapping[str, CallerRecord | None]) -> None:
        """Apply changes of callers; None: the caller has gone."""
        if changed:
            merged = {**self._records, **changed}
            self.replace(record for record in merged.values() if record is not None)

    def identify(
        self,
        metadata: Sequence[tuple[str, str | bytes]] | None,
        proofs: Iterable[tuple[CredentialKind, str]] = (),
        proved_until: Instant | None = None,
        hint: str = "",
    ) -> Identified | None:
        """Return who is calling; None if no caller is configured. `hint` is added to an error about no credentials.

        A key in the metadata counts before what the connection proves (`proofs`), which counts until `proved_until`
        (None: as long as the connection). Raises `Unauthenticated`, and `Unavailable` while the callers may be others
        than those in memory.
        """
        if not self._records:
            return None
        if not self.is_confirmed():
            raise Unavailable(_UNCONFIRMED)
        now = self._now()
        sent = [value for key, value in metadata or () if key == AUTHORIZATION]
        if sent:
            return self._by_key(sent, now)
        # The next call on the connection proves the same.
        shown_before = tuple(proofs), proved_until
        known = self._proved.get(shown_before)
        if known is None or (known.until is not None and now >= known.until):
            known = self._by_connection(*shown_before, now, hint)
            self._proved.put(shown_before, known)
        return known

    def identify_on_socket(
        self, metadata: Sequence[tuple[str, str | bytes]] | None, name: str, *, is_forwarded: bool
    ) -> Identified | None:
        """Return who is calling on the socket of the caller `name`; see `identify`.

        A key counts before the socket, which says nothing about calls that somebody has forwarded.
        """
        record = self._records.get(name)
        if record is None or is_forwarded or sends_key(metadata):
            hint = "" if is_forwarded else f"; this socket is for the caller {shown(name)}, which does not exist"
            return self.identify(metadata, hint=hint)
        if not self.is_confirmed():
            raise Unavailable(_UNCONFIRMED)
        return Identified(record, None)

    def now(self) -> Instant:
        """Return the authority's time."""
        return self._now()

    def revision_of(self, name: str) -> int | None:
        """Return the revision of a caller's latest change; None if there is no such caller."""
        record = self._records.get(name)
        return None if record is None else record.revision

    def _by_connection(self, proofs: Proofs, until: Instant | None, now: Instant, hint: str) -> Identified:
        has_ended = until is not None and now >= until
        found = [self._names[kind, name.encode()] for kind, name in proofs if (kind, name.encode()) in self._names]
        good = [(record, credential) for record, credential in found if credential.is_good(now) and not has_ended]
        if len({record.name for record, _ in good}) == 1:
            # Several names of one caller: the caller is known for as long as one of them counts.
            last = max(good, key=lambda pair: _FOREVER if pair[1].expires is None else pair[1].expires)
            ends = [end for end in (until, last[1].expires) if end is not None]
            return Identified(last[0], min(ends, default=None))
        if good:
            raise Unauthenticated("the client certificate has names of several callers; send a key")
        if has_ended and proofs:
            hint = "; the certificate of this connection has expired: connect again with a new one"
        elif proofs:
            hint = "; no caller has a name of this connection's certificate"
        raise Unauthenticated(f"no credentials: send the key of a caller, as `authorization: Bearer KEY`{hint}")

    def _by_key(self, sent: Sequence[str | bytes], now: Instant) -> Identified:
        text = sent[0] if len(sent) == 1 and isinstance(sent[0], str) else ""
        key = presented_key(text[len(_BEARER) :].strip()) if text[: len(_BEARER)].lower() == _BEARER else None
        if key is None:
            raise Unauthenticated("authorization: send it once, as `Bearer KEY` with the key of a caller")
        known = self._keys.get(key.id)
        # A wrong key and an unknown one are not told apart.
        if known is None or not key.proves(known[1]):
            raise Unauthenticated(
                "the key is unknown or revoked; ask an admin for a new one (sessionctl callers rotate)"
            )
        if not known[1].is_good(now):
            raise Unauthenticated("the key has expired; ask an admin for a new one (sessionctl callers rotate)")
        return known[0]

    def _index(self) -> None:
        self._keys.clear()
        self._names.clear()
        self._proved = Lru(_REMEMBERED)
        for record in self._records.values():
            for credential in record.credentials:
                if credential.kind is CredentialKind.KEY:
                    self._keys[credential.id] = (Identified(record, credential.expires), credential)
                else:
                    self._names[credential.kind, credential.value] = (record, credential)
