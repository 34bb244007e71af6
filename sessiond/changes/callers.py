"""Units that change callers. Each change is an event, and none leaves the authority without an admin.

A unit has the `version` of the caller that asks for it, as it was when it was identified (0: there was no caller then,
and nobody had to be one). The process that identified it may not have known the latest changes. Here they are known, so
whoever was revoked meanwhile cannot add a caller to come back as.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sessiond.domain.access import CallerRecord, Credential, CredentialKind, Grants
from sessiond.domain.errors import (
    CallerExists,
    CallerNotFound,
    InvalidField,
    LastAdmin,
    Unauthenticated,
    Unavailable,
    shown,
)
from sessiond.domain.event import EventType
from sessiond.domain.immutable import immutable
from sessiond.domain.values import Cause, Instant, Millis
from sessiond.eventlog.work import Needs, Work

__all__ = ["AddCaller", "CallerChanged", "ChangeCertificates", "RemoveCaller", "RotateCaller"]

_CALLERS = Needs(callers=True)
_MAX_REASON = 256
_MAX_CALLERS = 10_000
_MAX_CERTIFICATES = 10


@immutable
class AddCaller:
    """Add a caller with its first credentials: a key, names in certificates, or both. It may have none."""

    name: str
    grants: Grants
    credential: Credential | None
    cause: Cause
    version: int
    certificates: tuple[Credential, ...] = ()

    def needs(self) -> Needs:
        """Return what to read: all callers."""
        return _CALLERS

    def apply(self, work: Work) -> CallerRecord:
        """Return the new caller. Raises `CallerExists`, `LastAdmin`, `InvalidField`, and as `_check_actor`."""
        callers = work.callers()
        _check_actor(callers, self.cause, self.version)
        if self.name in callers:
            raise CallerExists(f"name: there is a caller {shown(self.name)}; rotate its credential, or revoke it first")
        if len(callers) >= _MAX_CALLERS:
            raise InvalidField("name", f"there are {_MAX_CALLERS} callers already; revoke some first")
        key = () if self.credential is None else (self.credential,)
        for credential in key:
            _check_unproven(callers, credential, "credential")
        for credential in self.certificates:
            _check_unproven(callers, credential, "certificate_names")
        caller = CallerRecord(self.name, self.grants, (*key, *self.certificates), work.now, work.next_revision)
        _check_admin(
            {**callers, self.name: caller},
            work.now,
            "grants: the first caller must be an admin for all applications, with a key: `sessionctl callers add ops "
            "--role admin`",
        )
        _record(work, self.cause, f"added {self.name}: {_words(self.grants)}{_proofs(caller.credentials)}")
        work.put_caller(self.name, caller)
        return caller


@immutable
class CallerChanged:
    """A caller before and after its credentials changed."""

    before: CallerRecord
    after: CallerRecord


@immutable
class RotateCaller:
    """Add a credential to a caller. Its credentials of the same kind expire after `overlap` milliseconds."""

    name: str
    credential: Credential
    overlap: Millis
    cause: Cause
    version: int

    def needs(self) -> Needs:
        """Return what to read: all callers."""
        return _CALLERS

    def apply(self, work: Work) -> CallerChanged:
        """Return the caller before and after. Raises `CallerNotFound`, `InvalidField`, and as `_check_actor`."""
        callers = work.callers()
        _check_actor(callers, self.cause, self.version)
        known = callers.get(self.name)
        if known is None:
            raise CallerNotFound(f"name: there is no caller {shown(self.name)}")
        _check_unproven(callers, self.credential, "credential")
        end = Instant(work.now + self.overlap)
        kept = [_ending(old, end) if old.kind is self.credential.kind else old for old in known.credentials]
        good = tuple(old for old in kept if old.is_good(work.now))
        changed = replace(known, credentials=(*good, self.credential), revision=work.next_revision)
        _record(work, self.cause, f"rotated {self.name}: credential {self.credential.id}")
        work.put_caller(self.name, changed)
        return CallerChanged(known, changed)


@immutable
class ChangeCertificates:
    """Add names in certificates to a caller, and remove others, which prove nothing from then on."""

    name: str
    add: tuple[Credential, ...]
    remove: tuple[str, ...]
    cause: Cause
    version: int

    def needs(self) -> Needs:
        """Return what to read: all callers."""
        return _CALLERS

    def apply(self, work: Work) -> CallerChanged:
        """Return the caller before and after. Raises `CallerNotFound`, `InvalidField`, and as `_check_actor`."""
        callers = work.callers()
        _check_actor(callers, self.cause, self.version)
        known = callers.get(self.name)
        if known is None:
            raise CallerNotFound(f"name: there is no caller {shown(self.name)}")
        has = {old.id for old in known.credentials if old.kind is CredentialKind.CERTIFICATE}
        for name in self.remove:
            if name not in has:
                problem = f"{shown(name)} is not a certificate name of this caller; see `sessionctl callers`"
                raise InvalidField("remove", problem)
        for new in self.add:
            _check_unproven(callers, new, "add")
        kept = [
            old
            for old in known.credentials
            if old.is_good(work.now) and not (old.kind is CredentialKind.CERTIFICATE and old.id in self.remove)
        ]
        if not kept and not self.add:
            remedy = "would leave the caller without a credential; give it a key first, or revoke it"
            raise InvalidField("remove", remedy)
        if len(has) - len(self.remove) + len(self.add) > _MAX_CERTIFICATES:
            raise InvalidField("add", f"a caller has at most {_MAX_CERTIFICATES} certificate names; remove some")
        changed = replace(known, credentials=(*kept, *self.add), revision=work.next_revision)
        parts = [f"{verb} {', '.join(names)}" for verb, names in self._changes() if names]
        _record(work, self.cause, f"certificates of {self.name}: {'; '.join(parts)}")
        work.put_caller(self.name, changed)
        return CallerChanged(known, changed)

    def _changes(self) -> tuple[tuple[str, list[str]], ...]:
        return ("added", [new.id for new in self.add]), ("removed", list(self.remove))


@immutable
class RemoveCaller:
    """Remove a caller. From then on its credentials prove nothing."""

    name: str
    cause: Cause
    version: int

    def needs(self) -> Needs:
        """Return what to read: all callers."""
        return _CALLERS

    def apply(self, work: Work) -> CallerRecord:
        """Return the caller as it was. Raises `CallerNotFound`, `LastAdmin`, and as `_check_actor`."""
        callers = work.callers()
        _check_actor(callers, self.cause, self.version)
        known = callers.get(self.name)
        if known is None:
            raise CallerNotFound(f"name: there is no caller {shown(self.name)}")
        rest = {name: caller for name, caller in callers.items() if name != self.name}
        _check_admin(
            rest,
            work.now,
            f"name: {shown(self.name)} is the last admin for all applications with a key; add another one first",
        )
        _record(work, self.cause, f"revoked {self.name}")
        work.put_caller(self.name, None)
        return known


def _ending(credential: Credential, end: Instant) -> Credential:
    """Return a credential that ends then, or earlier if it did before."""
    ends_before = credential.expires is not None and credential.expires <= end
    return credential if ends_before else replace(credential, expires=end)


def _check_actor(callers: Mapping[str, CallerRecord], cause: Cause, version: int) -> None:
    """Raise `Unauthenticated` or `Unavailable` if the caller that asks is not as it was when it was identified."""
    known = callers.get(cause.actor)
    if not version and not callers:
        return
    if not version or known is None:
        raise Unauthenticated(
            "this caller was revoked, or the call has no credentials; call again with the key of a caller"
        )
    if known.revision != version:
        raise Unavailable("this caller was changed; call again")


def _check_unproven(callers: Mapping[str, CallerRecord], credential: Credential, field: str) -> None:
    """Raise `InvalidField` if another credential would be proved by the same thing."""
    for caller in callers.values():
        for other in caller.credentials:
            if (other.kind, other.value) == (credential.kind, credential.value) or other.id == credential.id:
                raise InvalidField(field, f"belongs to the caller {shown(caller.name)} already")


def _check_admin(callers: Mapping[str, CallerRecord], now: Instant, remedy: str) -> None:
    """Raise `LastAdmin` with the remedy if nobody could manage the callers: a certificate does not count, it ends."""
    if not any(caller.is_good_admin(now) for caller in callers.values()):
        raise LastAdmin(remedy)


def _record(work: Work, cause: Cause, change: str) -> None:
    text = f"{change}; {cause.reason}" if cause.reason else change
    work.record_other(EventType.CALLER_CHANGED, "", replace(cause, reason=text[:_MAX_REASON]))


def _proofs(credentials: Sequence[Credential]) -> str:
    """Return for an event how a new caller proves who it is."""
    shown_as = {CredentialKind.KEY: "credential", CredentialKind.CERTIFICATE: "certificate"}
    return "".join(f"; {shown_as[one.kind]} {one.id}" for one in credentials if one.kind in shown_as)


def _words(grants: Grants) -> str:
    return ", ".join(f"{role.value} for {application}" for application, role in sorted(grants))
