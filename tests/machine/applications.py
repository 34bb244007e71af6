"""The applications of the machine. Together they use every rule of a policy."""

from __future__ import annotations

from collections.abc import Mapping

from sessiond.domain.policy import PRESETS, LimitRule, Policy
from sessiond.domain.signals import Reaction, SignalType
from sessiond.domain.values import Millis
from tests.machine.model import (
    ALERT,
    ASK,
    EVICT_LEAST_RECENT,
    EVICT_OLDEST,
    REJECT,
    REVOKE_SUBJECT,
    STEP_UP,
    Rules,
)

__all__ = ["APPLICATIONS", "REMEMBERING", "RULES", "SUBJECTS", "policies_of"]

RULES: Mapping[str, Rules] = {
    "bank": Rules(
        20_000,
        None,
        15_000,
        overlap=15_000,
        tolerance=1_000,
        refresh_extends=True,
        lost=9_000,
        on_replay=REVOKE_SUBJECT,
        most=2,
        at_most=ASK,
        elevation=5_000,
    ),
    "blog": Rules(
        None,
        100_000,
        None,
        overlap=1,
        tolerance=30_000,
        refresh_extends=True,
        lost=60_000,
        on_replay=ALERT,
        most=3,
        at_most=REJECT,
        elevation=9_000,
        fold=9_000,
        kept=90_000,
        guests_kept=15_000,
    ),
    "club": Rules(
        20_000,
        120_000,
        25_000,
        overlap=8_000,
        tolerance=2_000,
        refresh_extends=False,
        lost=40_000,
        on_replay=STEP_UP,
        most=2,
        at_most=EVICT_LEAST_RECENT,
        elevation=15_000,
        fold=30_000,
        remember_idle=60_000,
        remember_absolute=300_000,
    ),
    "shop": Rules(
        60_000, 240_000, 40_000, overlap=10_000, tolerance=5_000, refresh_extends=False, most=2, at_most=EVICT_OLDEST
    ),
}
APPLICATIONS = sorted(RULES)
SUBJECTS = ["ada", "bob"]
REMEMBERING = "club"


def _millis(value: int | None) -> Millis | None:
    return None if value is None else Millis(value)


def _policy_of(rules: Rules) -> Policy:
    return Policy(
        preset="owasp-low",
        idle_timeout=_millis(rules.idle),
        absolute_timeout=_millis(rules.absolute),
        renewal_timeout=_millis(rules.renewal),
        renewal_overlap=Millis(rules.overlap),
        roll_tolerance=Millis(rules.tolerance),
        lost_answer_tolerance=Millis(rules.lost),
        refresh_extends_lifetime=rules.refresh_extends,
        retention=Millis(rules.kept),
        anonymous_retention=Millis(rules.guests_kept),
        login_timeout=Millis(rules.login),
        remember_idle_timeout=_millis(rules.remember_idle),
        remember_absolute_timeout=_millis(rules.remember_absolute),
        remember_level=rules.remember_level,
        elevation_timeout=Millis(rules.elevation),
        max_sessions=rules.most,
        on_limit=LimitRule(rules.at_most),
        fold_window=Millis(rules.fold),
        reactions=dict(PRESETS["owasp-low"].reactions) | {SignalType.TOKEN_REPLAY: Reaction(rules.on_replay)},
    )


def policies_of(rules: Mapping[str, Rules]) -> dict[str, Policy]:
    """Return the rules as policies of the authority."""
    return {application: _policy_of(one) for application, one in rules.items()}
