"""The manifests for Kubernetes, as Kustomize makes them."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import yaml

from tests.deploy.orchestrated import DEPLOY

__all__ = ["FOLDER", "PARTS", "Manifest", "containers", "environment", "find", "pods", "rendered", "run"]

FOLDER = DEPLOY / "kubernetes"
PARTS = ["base", "first-caller", "overlays/shop"]
Manifest = dict[str, Any]


@cache
def rendered(part: str) -> list[Manifest]:
    """Return the objects of a part, as Kustomize makes them."""
    if _kustomize_version() < 5:
        pytest.skip("needs kubectl 1.27 or newer, whose kustomize puts the manifests together")
    made = run("kubectl", "kustomize", str(FOLDER / part))
    assert made.returncode == 0, made.stderr
    assert made.stderr == ""  # warnings, such as about what is deprecated
    return list(yaml.safe_load_all(made.stdout))


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a command, and return what it printed."""
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def _kustomize_version() -> int:
    """Return the major version of kubectl's kustomize; 0: there is none."""
    if shutil.which("kubectl") is None:
        return 0
    found = re.search(r"Kustomize Version: v(\d+)", run("kubectl", "version", "--client").stdout)
    return int(found[1]) if found else 0


def find(part: str, kind: str) -> Manifest:
    """Return the only object of a kind."""
    (found,) = [one for one in rendered(part) if one["kind"] == kind]
    return dict(found)


def pods() -> Iterator[tuple[str, Manifest, Manifest]]:
    """Yield the part, the metadata and the specification of each pod."""
    for part in PARTS:
        for one in rendered(part):
            if one["kind"] == "Pod":
                yield part, one["metadata"], one["spec"]
            elif one["kind"] == "Deployment":
                template = one["spec"]["template"]
                yield part, one["metadata"] | {"labels": template["metadata"]["labels"]}, template["spec"]


def containers(spec: Manifest) -> list[Manifest]:
    """Return every container of a pod."""
    return [*spec["containers"], *spec.get("initContainers", ())]


def environment(container: Manifest) -> dict[str, str]:
    """Return the variables of a container. One from a secret has a value of the form that the manifest documents."""
    address = "postgres://sessiond:PASSWORD@HOST/sessiond"
    return {one["name"]: one.get("value", address) for one in container["env"]}
