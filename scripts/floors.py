"""Install the Python client with the oldest dependencies that it allows, and make a call with it.

A range in `clients/python/pyproject.toml` promises that its lower end works. This keeps the promise: it makes a virtual
environment in `build/floors`, installs the lower end of each range there, and runs `floors_smoke.py` in it against a
server of the developers' environment.
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
PLACE = ROOT / "build" / "floors"


def floors() -> list[str]:
    """The lower end of each dependency's range, as a pinned requirement."""
    project = tomllib.loads((CLIENT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [dependency.replace(">=", "==") for dependency in project["dependencies"]]


def main() -> int:
    """Install and call; exit code 1 if either fails."""
    print(f"installing {', '.join(floors())} in {PLACE.relative_to(ROOT)} ...")
    venv.create(PLACE, clear=True, with_pip=True)
    python = str(PLACE / "bin" / "python")
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
    """Where the server listens, once it does."""
    while server.poll() is None:
        for line in log.read_text(encoding="utf-8").splitlines():
            if line.startswith("{") and line.endswith("}") and json.loads(line).get("event") == "serving":
                return str(json.loads(line)["address"])
        time.sleep(0.05)
    raise SystemExit(f"the server did not start: {log.read_text(encoding='utf-8')}")


if __name__ == "__main__":
    sys.exit(main())
