"""The policies in force, one for each application. They can be replaced all at once while the authority runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from hashlib import sha256

from sessiond.domain.policy import Policy

__all__ = ["Origins", "PolicyBook"]

Origins = Mapping[str, Mapping[str, str]]
"""For each application, the source of each value of its policy, by the value's path."""


class PolicyBook(Mapping[str, Policy]):
    """The policies by application. Components that must follow changes hold this object instead of a single policy.

    `fingerprint` identifies the set of policies: it is the same on every replica with the same policies.
    """

    def __init__(self, policies: Mapping[str, Policy], origins: Origins | None = None) -> None:
        self._policies = dict(policies)
        self.origins: Origins = origins or {}
        self.fingerprint = _fingerprint(self._policies)

    def __getitem__(self, application: str) -> Policy:
        return self._policies[application]

    def __iter__(self) -> Iterator[str]:
        return iter(self._policies)

    def __len__(self) -> int:
        return len(self._policies)

    def replace(self, policies: Mapping[str, Policy], origins: Origins) -> dict[str, str]:
        """Replace all policies. Return a description of the change for each application whose policy differs."""
        before, self._policies, self.origins = self._policies, dict(policies), origins
        self.fingerprint = _fingerprint(self._policies)
        changes = {}
        for application in sorted({*before, *policies}):
            old, new = before.get(application), policies.get(application)
            if old is None:
                changes[application] = "application added"
            elif new is None:
                changes[application] = "application removed"
            elif old != new:
                names = [field.name for field in fields(Policy) if getattr(old, field.name) != getattr(new, field.name)]
                changes[application] = "changed: " + ", ".join(names)
        return changes


def _fingerprint(policies: Mapping[str, Policy]) -> str:
    """Return 32 hex digits that are equal for equal policies, on every replica."""
    text = "\n".join(f"{name} {_canonical(policies[name])}" for name in sorted(policies))
    return sha256(text.encode()).hexdigest()[:32]


def _canonical(value: object) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_canonical(value[key])}" for key in sorted(value)) + "}"
    if is_dataclass(value):
        return "(" + ", ".join(f"{f.name}={_canonical(getattr(value, f.name))}" for f in fields(value)) + ")"
    return repr(value)
