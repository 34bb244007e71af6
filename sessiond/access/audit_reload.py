"""The audit lines of a reload of the configuration, which no call has asked for."""

from __future__ import annotations

from collections.abc import Mapping

from sessiond.access.audit import Audit
from sessiond.config import effective
from sessiond.domain.access import ANY_APPLICATION
from sessiond.domain.audit import RELOAD, AuditRecord
from sessiond.domain.policy import Policy

__all__ = ["record_refused_reload", "record_reload"]

_AUTHORITY = "authority"
"""The actor: the system does not say who has sent a signal. Only the server's own user and root may."""


def record_reload(
    audit: Audit, before: Mapping[str, Policy], after: Mapping[str, Policy], changed: Mapping[str, str]
) -> None:
    """Record a reload, and for each application that it has changed what `changed` says."""
    audit.record(AuditRecord(_AUTHORITY, action=RELOAD, application=ANY_APPLICATION, count=len(changed)))
    for application, change in changed.items():
        was, now = _differing(before.get(application), after.get(application))
        target, now = f"policy of {application}", now if was or now else change
        audit.record(
            AuditRecord(_AUTHORITY, action=RELOAD, application=application, target=target, before=was, after=now)
        )


def record_refused_reload(audit: Audit) -> None:
    """Record that the configuration has errors, so that nothing was changed."""
    audit.record(AuditRecord(_AUTHORITY, action=RELOAD, application=ANY_APPLICATION, outcome="REFUSED"))


def _differing(before: Policy | None, after: Policy | None) -> tuple[str, str]:
    """Return the values of a policy that differ, before and after; of a new or removed one only its preset."""
    was, now = ({} if policy is None else effective(policy) for policy in (before, after))
    keys = [key for key in sorted({*was, *now}) if was.get(key) != now.get(key)] if was and now else ["preset"]
    texts = [", ".join(f"{key}={values[key]}" for key in keys if key in values) for values in (was, now)]
    return texts[0], texts[1]
