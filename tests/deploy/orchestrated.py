"""What the tests of deploy/compose and deploy/kubernetes share: settings of an environment, and the guide."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from sessiond.config import Config, SidecarConfig, load_config, load_sidecar, overrides_in, sidecar_overrides_in
from sessiond.config.overrides import unknown_variables
from sessiond.config.starting import remote_plaintext
from tests.test_docs import blocks_of

__all__ = ["DEPLOY", "GUIDE", "IMAGE_VARIABLES", "STOP_TIME", "authority", "guide_commands", "sidecar"]

DEPLOY = Path(__file__).parents[2] / "deploy"
GUIDE = Path(__file__).parents[2] / "docs" / "how-to" / "run-in-containers.md"
STOP_TIME = 20
"""Seconds that a server may take to stop: twice `drain_timeout`, and ten for the store (docs/reference/health.md)."""
_PAIR = re.compile(r"\b([A-Z_]+)=(\S+?)(?: \\)?$", re.MULTILINE)


def _image_variables() -> dict[str, str]:
    text = (DEPLOY / "container" / "Containerfile").read_text(encoding="utf-8")
    found = dict(_PAIR.findall(text[text.index("\nENV ") :]))
    return {name: value for name, value in found.items() if name.startswith("SESSIOND_")}


IMAGE_VARIABLES = _image_variables()
"""What the image sets in the environment."""


def authority(environment: Mapping[str, str], file: Path | None) -> Config:
    """Return the settings of an authority in the image, with this environment and file. Raise if it would not start."""
    whole = IMAGE_VARIABLES | dict(environment)
    config = load_config(file, overrides_in(whole))
    assert unknown_variables(whole) == {}
    assert list(remote_plaintext(config)) == []
    return config


def sidecar(environment: Mapping[str, str]) -> SidecarConfig:
    """Return the settings of a sidecar in the image, with this environment. Raise if it would not start."""
    whole = IMAGE_VARIABLES | dict(environment)
    assert unknown_variables(whole) == {}
    return load_sidecar(sidecar_overrides_in(whole))


def guide_commands() -> str:
    """Return the shell commands of the guide, each on one line."""
    return "\n".join(blocks_of(GUIDE, "sh")).replace("\\\n", " ")
