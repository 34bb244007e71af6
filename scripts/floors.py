"""Install the Python client with the oldest dependencies that it allows, and test it.

A version range in `clients/python/pyproject.toml` promises that its lowest version works. This script verifies that: it
creates a virtual environment in `build/floors`, installs the lowest version of each range there, and runs
`floors_smoke.py` in it against a server in the development environment.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent
CLIENT = ROOT / "clients" / "python"
ENVIRONMENT = ROOT / "build" / "floors"


def floors() -> list[str]:
    """Return the lowest allowed version of each dependency, as a pinned requirement."""
    project = tomllib.loads((CLIENT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [dependency.replace(">=", "==") for dependency in project["dependencies"]]


def main() -> int:
    """Install the client and test it. Return exit code 1 if the test fails; raise if the installation fails."""
    print(f"installing {', '.join(floors())} in {ENVIRONMENT.relative_to(ROOT)} ...")
    venv.create(ENVIRONMENT, clear=True, with_pip=True)
    python = str(ENVIRONMENT / "bin" / "python")
    install = [python, "-I", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, *floors()], check=True)
    subprocess.run([*install, "hatchling", "editables"], check=True)
    subprocess.run([*install, "--no-deps", "--no-build-isolation", str(CLIENT)], check=True)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        serve = [sys.executable, "-m", "sessiond", "serve", "--data", f"{folder}/data", "--listen", "127.0.0.1:0"]
        with log.open("wb") as output:
            server = subprocess.Popen([*serve, "--log-format", "json"], stdout=output, stderr=output, cwd=ROOT)
        try:
            smoke = [python, "-I", str(ROOT / "scripts" / "floors_smoke.py"), address_in(log, server)]
            return subprocess.run(smoke, check=False, cwd=folder).returncode
        finally:
            server.terminate()
            server.wait()


def address_in(log: Path, server: subprocess.Popen[bytes]) -> str:
    """Wait until the server listens, and return its address. Raise SystemExit if it ends instead."""
    while server.poll() is None:
        for line in log.read_text(encoding="utf-8").splitlines():
            if line.startswith("{") and line.endswith("}") and json.loads(line).get("event") == "serving":
                return str(json.loads(line)["address"])
        time.sleep(0.05)
    raise SystemExit(f"the server did not start: {log.read_text(encoding='utf-8')}")


if __name__ == "__main__":
    sys.exit(main())
