"""A plugin of pytest for runs against mutants: Hypothesis finds a fault, and spends no minutes to make it small."""

from __future__ import annotations

from hypothesis import Phase, settings

settings.register_profile(
    "mutation", phases=[Phase.explicit, Phase.generate], deadline=None, database=None, derandomize=True
)
settings.load_profile("mutation")
