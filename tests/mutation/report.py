"""What a campaign found: counts for each folder, survivors line by line, a JSON file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.mutation.campaign import Fate, Result
from tests.mutation.equivalence import FILTERS

__all__ = ["Report", "score"]


def score(fates: Mapping[Fate, int]) -> float:
    """The share, in per cent, of the mutants that were killed, a timeout being a kill; equivalent ones do not count."""
    killed = fates[Fate.KILLED] + fates[Fate.TIMEOUT]
    tried = killed + fates[Fate.SURVIVED]
    return 100 * killed / tried if tried else 0.0


@dataclass
class Report:
    """The results so far, and what they are a sample of."""

    targets: Sequence[str]
    seed: int
    bar: float
    mutants: int
    failing: Sequence[str] = ()
    results: list[Result] = field(default_factory=list)

    @property
    def fates(self) -> Counter[Fate]:
        """How many mutants met which fate."""
        return Counter(result.fate for result in self.results)

    @property
    def holds(self) -> bool:
        """Whether the score reaches the bar."""
        return score(self.fates) >= self.bar

    def progress(self, seconds_left: float) -> str:
        """The counts in one line."""
        fates = self.fates
        counts = ", ".join(f"{fates[fate]} {fate}" for fate in Fate)
        return f"{len(self.results)} of {self.mutants}: {counts}; {max(0, seconds_left) / 60:.1f} min left"

    def text(self) -> str:
        """The report for a reader."""
        lines = [f"{'folder':<28}{'score':>8}" + "".join(f"{fate:>12}" for fate in Fate)]
        for name, fates in [*self._by_target().items(), ("all", self.fates)]:
            tried = fates[Fate.KILLED] + fates[Fate.TIMEOUT] + fates[Fate.SURVIVED]
            percent = f"{score(fates):.1f}%" if tried else "-"
            lines.append(f"{name:<28}{percent:>8}" + "".join(f"{fates[fate]:>12}" for fate in Fate))
        lines += [
            "",
            f"A seeded sample (seed {self.seed}): {len(self.results)} of {self.mutants} mutants.",
            "A timeout counts as killed. Skipped mutants are equivalent by construction:",
            *(f"  - {words}" for words in FILTERS),
        ]
        if self.failing:
            lines += ["", "These tests fail on the unmutated tree and kill nothing:", *self.failing]
        for fate, title in ((Fate.EQUIVALENT, "Equivalent"), (Fate.TIMEOUT, "Timed out"), (Fate.SURVIVED, "Survived")):
            found = self._sorted(fate)
            lines += ["", f"{title}: {len(found)}", *(_told(result) for result in found)]
        verdict = "reaches" if self.holds else "is under"
        return "\n".join([*lines, "", f"The score, {score(self.fates):.1f} %, {verdict} the bar, {self.bar:g} %."])

    def write(self, path: Path) -> None:
        """Write all of it as JSON."""
        content: dict[str, Any] = {
            "seed": self.seed,
            "bar": self.bar,
            "mutants": self.mutants,
            "score": score(self.fates),
            "folders": {
                name: {"score": score(fates)} | {fate: fates[fate] for fate in Fate}
                for name, fates in self._by_target().items()
            },
            "failing": list(self.failing),
            "results": [asdict(result) for result in self.results],
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content, indent=1), encoding="utf-8")

    def _by_target(self) -> dict[str, Counter[Fate]]:
        return {
            target: Counter(r.fate for r in self.results if f"{r.change.module}/".startswith(f"{target.rstrip('/')}/"))
            for target in self.targets
        }

    def _sorted(self, fate: Fate) -> list[Result]:
        found: Iterable[Result] = (result for result in self.results if result.fate is fate)
        return sorted(found, key=lambda result: (result.change.module, result.line, result.change.after))


def _told(result: Result) -> str:
    change = result.change
    reason = f"\n    ({result.detail})" if result.detail else ""
    place = f"{change.module}:{result.line} {change.function}"
    return f"  {place}\n    {change.before}\n    -> {change.after or '(removed)'}{reason}"
