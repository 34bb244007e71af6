"""`sessionctl reload`: it signals only the server that holds the data folder, and shows the outcome."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from click.testing import CliRunner, Result
from structlog.testing import capture_logs

from sessionctl import main, reloading
from sessiond.app import App, Reloaded
from sessiond.config import Config, load_config
from sessiond.serving import _reload
from sessiond.store.contract import StoreUnavailable
from tests.support.server import ServerProcess

GOOD = '[applications.default]\nidle_timeout = "20m"\n'


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    """A server that serves, with `sessiond.toml` in `tmp_path` and its data in `tmp_path/data`."""
    (tmp_path / "sessiond.toml").write_text(GOOD, encoding="utf-8")
    server = ServerProcess(tmp_path, "--config", str(tmp_path / "sessiond.toml"))
    try:
        await server.address()
        yield server
    finally:
        server.kill()


async def reload(*arguments: str | Path) -> Result:
    """Run the command without blocking the event loop."""
    return await asyncio.to_thread(CliRunner().invoke, main, ["reload", *map(str, arguments)])


@pytest.mark.usefixtures("server")
async def test_a_reload_says_what_changed(tmp_path: Path) -> None:
    """Changed policies and settings that need a restart are shown; a second reload changes nothing."""
    file, data = tmp_path / "sessiond.toml", tmp_path / "data"
    file.write_text("[server]\nmax_subscribers = 7\n" + GOOD.replace("20m", "15m"), encoding="utf-8")
    result = await reload("--data", data)
    assert (result.exit_code, result.stderr) == (0, "")
    assert (
        result.stdout
        == "APPLICATION  CHANGE\ndefault      changed idle_timeout\nrestart required for server.max_subscribers\n"
    )
    file.write_text(GOOD.replace("20m", "15m"), encoding="utf-8")
    assert (await reload("--data", data)).stdout == "policies unchanged\n"


async def test_a_reload_as_json(server: ServerProcess, tmp_path: Path) -> None:
    """With --json the outcome is one object, also if the configuration is refused."""
    file, data = tmp_path / "sessiond.toml", tmp_path / "data"
    file.write_text(GOOD.replace("20m", "15m"), encoding="utf-8")
    result = await reload("--data", data, "--json")
    assert json.loads(result.stdout) == {
        "pid": server.process.pid,
        "outcome": "reloaded",
        "changed": {"default": "changed: idle_timeout"},
        "limits_changed": False,
        "restart_required": [],
        "problems": [],
    }
    file.write_text("nonsense", encoding="utf-8")
    result = await reload("--data", data, "--json")
    assert result.exit_code == 78
    assert json.loads(result.stdout)["outcome"] == "refused"


@pytest.mark.usefixtures("server")
async def test_a_refused_configuration_is_a_failure(tmp_path: Path) -> None:
    """An error in the file is shown with its line, the exit code is 78, and the server keeps running."""
    file = tmp_path / "sessiond.toml"
    file.write_text(GOOD + "idel_timeout = 3\nretention = 3\n", encoding="utf-8")
    result = await reload("--data", tmp_path / "data")
    assert (result.exit_code, result.stdout) == (78, "")
    assert result.stderr.splitlines() == [
        f"Error: {file}:3: applications.default.idel_timeout: no such key; did you mean 'idle_timeout'?",
        f'Error: {file}:4: applications.default.retention: must be a duration such as "30s", "15m", "1h30m" or "30d"',
        "nothing has changed",
    ]
    file.write_text(GOOD, encoding="utf-8")
    assert (await reload("--data", tmp_path / "data")).exit_code == 0


async def test_the_folder_may_come_from_the_configuration(tmp_path: Path) -> None:
    """Without --data the folder is the one that the configuration names; if it has an error, nobody is signalled."""
    file = tmp_path / "sessiond.toml"
    text = f'[server]\ndata = "{tmp_path}/data"\nlisten = "127.0.0.1:0"\n[log]\nformat = "json"\n'
    file.write_text(text, encoding="utf-8")
    server = ServerProcess(tmp_path, "--config", str(file), options=False)
    try:
        await server.address()
        assert (await reload("--config", file)).stdout == "policies unchanged\n"
        file.write_text(text + "[nonsense]\n", encoding="utf-8")
        lines = len(server.log().splitlines())
        result = await reload("--config", file)
        assert result.exit_code == 78
        assert f"{file}:6: nonsense: no such section" in result.stderr
        assert (await reload("--config", file, "--data", tmp_path)).exit_code == 2
        assert len(server.log().splitlines()) == lines
    finally:
        server.kill()


async def test_the_folder_may_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SESSIOND_DATA and SESSIOND_CONFIG name the folder as they do for `sessiond serve`; --data overrides both."""
    monkeypatch.chdir(tmp_path)
    named, other, data = tmp_path / "named.toml", tmp_path / "other.toml", tmp_path / "from-variable"
    named.write_text(f'[server]\ndata = "{tmp_path}/from-file"\n', encoding="utf-8")
    other.write_text("[nonsense]\n", encoding="utf-8")
    monkeypatch.setenv("SESSIOND_CONFIG", str(named))
    assert f"the folder '{tmp_path}/from-file'" in (await reload()).stderr
    monkeypatch.setenv("SESSIOND_DATA", str(data))
    assert f"the folder '{data}'" in (await reload()).stderr
    assert f"the folder '{data}'" in (await reload("--config", named)).stderr
    assert f"the folder '{tmp_path}'" in (await reload("--data", tmp_path)).stderr
    monkeypatch.setenv("SESSIOND_DATA", "")  # counts as not set
    assert f"the folder '{tmp_path}/from-file'" in (await reload()).stderr
    monkeypatch.setenv("SESSIOND_CONFIG", str(other))
    result = await reload()
    assert (result.exit_code, result.stderr.splitlines()[1:]) == (78, ["nothing was reloaded"])
    monkeypatch.setenv("SESSIOND_MAX_CALLS", "many")  # does not name the folder
    assert f"the folder '{tmp_path}/from-file'" in (await reload("--config", named)).stderr


async def test_a_server_that_the_environment_configures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that was started with SESSIOND_DATA is found in the same environment without an option."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SESSIOND_DATA", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("SESSIOND_LISTEN", "127.0.0.1:0")
    server = ServerProcess(tmp_path, options=False)
    try:
        await server.address()
        assert (await reload()).stdout == "policies unchanged\n"
    finally:
        server.kill()


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """An unrelated process, which a SIGHUP would end."""
    process = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE)
    try:
        yield process
        assert process.poll() is None, "it was signalled"
    finally:
        process.kill()
        process.communicate()


async def test_a_dead_server_is_not_signalled(tmp_path: Path, bystander: subprocess.Popen[bytes]) -> None:
    """The id that a killed server left in the file may be another process's by now; the kernel's lock decides."""
    server = ServerProcess(tmp_path)
    await server.address()
    server.kill()
    lock = tmp_path / "data" / "sessiond.db.lock"
    assert lock.read_text() == f"{server.process.pid}\n"
    lock.write_text(f"{bystander.pid}\n")
    result = await reload("--data", tmp_path / "data")
    assert (result.exit_code, result.stderr.count("\n")) == (4, 1)
    assert f"no server uses the folder '{tmp_path / 'data'}'" in result.stderr


HOLDER = """
import fcntl, json, os, signal, sys, time
from sessiond.system.clock import since_boot

def report(**outcome):
    with open("draft", "w") as draft:
        json.dump({"pid": 1, "changed": {}, "restart_required": [], "problems": []} | outcome, draft)
    os.replace("draft", "sessiond.reload")

def reload(*_):
    if os.path.exists("running"):  # another reload that was already running ends now
        report(load_began=since_boot() - 10**11, outcome="reloaded")
        time.sleep(0.3)
        report(load_began=since_boot(), outcome="refused", problems=["idle_timeout: no such key"])
    else:
        report(load_began=since_boot(), outcome="reloaded")

signal.signal(signal.SIGHUP, reload)
lock = open("sessiond.db.lock", "r+")
fcntl.lockf(lock, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def holding(folder: Path, names: int, *prefix: str) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lock of a folder and answers SIGHUP with a report; the file names process `names`."""
    (folder / "sessiond.db.lock").write_text(f"{names}\n")
    command = [*prefix, sys.executable, "-c", HOLDER]
    pipes: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=folder, **pipes) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


async def test_the_kernel_decides_who_is_signalled(tmp_path: Path, bystander: subprocess.Popen[bytes]) -> None:
    """The signal goes to the process that holds the lock, whichever process the file names."""
    with holding(tmp_path, bystander.pid) as holder:
        assert (await reload("--data", tmp_path)).stdout == "policies unchanged\n"
        assert holder.poll() is None


async def test_the_outcome_of_a_reload_that_was_already_running_is_not_the_answer(tmp_path: Path) -> None:
    """Only a reload that read the file after the signal is the answer, however soon another one reports."""
    (tmp_path / "running").touch()
    with holding(tmp_path, 1):
        result = await reload("--data", tmp_path)
    assert (result.exit_code, result.stdout) == (78, "")
    assert result.stderr == "Error: idle_timeout: no such key\nnothing has changed\n"


async def test_a_signal_is_not_sent_to_a_process_that_holds_no_lock(
    tmp_path: Path, bystander: subprocess.Popen[bytes]
) -> None:
    """If the server ends and another process gets its id before the signal is sent, that process gets none."""
    with holding(tmp_path, 1):
        with pytest.raises(ProcessLookupError):
            reloading._signal(tmp_path / "sessiond.db.lock", bystander.pid)
        await asyncio.sleep(0.1)
        assert bystander.poll() is None


class BusyStore:
    """An app whose first reload fails, since its store does not respond for a moment."""

    def __init__(self) -> None:
        self.reloads = 0

    async def reload(self, _: Config) -> Reloaded:
        """Fail once, then change nothing."""
        self.reloads += 1
        if self.reloads == 1:
            raise StoreUnavailable("busy")
        return Reloaded({}, [])


async def test_a_store_that_does_not_respond_fails_one_reload(tmp_path: Path) -> None:
    """If the store does not respond for a moment, that reload is reported as failed, and the next one works."""
    app, asked, report = BusyStore(), asyncio.Event(), tmp_path / "report"
    with capture_logs():
        task = asyncio.create_task(_reload(cast("App", app), lambda: load_config(None), asked, report))
        outcomes = []
        for number in (1, 2):
            asked.set()
            async with asyncio.timeout(10):
                while app.reloads < number or not report.exists():
                    assert not task.done()
                    await asyncio.sleep(0)
            outcomes.append(json.loads(report.read_text())["outcome"])
            report.unlink()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert outcomes == ["failed", "reloaded"]


NEW_NAMESPACE = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]
has_namespaces = (
    shutil.which("unshare") is not None
    and subprocess.run([*NEW_NAMESPACE, "true"], check=False, capture_output=True).returncode == 0
)
needs_namespaces = pytest.mark.skipif(not has_namespaces, reason="no process namespaces can be made here")


@needs_namespaces
async def test_a_server_in_a_container_is_reached_from_outside(
    tmp_path: Path, bystander: subprocess.Popen[bytes]
) -> None:
    """A server in a container gets the signal by its process id outside of the container."""
    with holding(tmp_path, bystander.pid, *NEW_NAMESPACE, "--kill-child"):
        assert (await reload("--data", tmp_path)).stdout == "policies unchanged\n"


@needs_namespaces
async def test_a_server_outside_of_the_container_is_not_confused_with_another_process(tmp_path: Path) -> None:
    """From a container that does not see the server, no process is signalled."""
    with holding(tmp_path, 1):
        run = await asyncio.to_thread(
            subprocess.run,
            [*NEW_NAMESPACE, sys.executable, "-m", "sessionctl", "reload", "--data", str(tmp_path)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert (run.returncode, run.stderr.count("\n")) == (1, 1), run.stderr
    assert "runs in another container" in run.stderr


@pytest.mark.parametrize("exists", [True, False])
async def test_no_server(tmp_path: Path, exists: bool) -> None:
    """After a server has stopped, and in an empty folder, there is no server to reload."""
    if exists:
        server = ServerProcess(tmp_path)
        await server.address()
        assert await server.terminate() == 0
        assert (tmp_path / "data" / "sessiond.db.lock").read_text() == ""
    result = await reload("--data", tmp_path / "data")
    assert (result.exit_code, "no server uses the folder" in result.stderr) == (4, True)


async def test_a_server_that_does_not_report(server: ServerProcess, tmp_path: Path) -> None:
    """A server that cannot write its report has reloaded nevertheless; the command refers to its log."""
    (tmp_path / "data" / "sessiond.reload").mkdir()
    result = await reload("--data", tmp_path / "data", "--timeout", "1")
    assert (result.exit_code, "see its log" in result.stderr) == (4, True)
    assert '"event": "reload not reported"' in server.log()


@pytest.mark.usefixtures("server")
@pytest.mark.skipif(os.getuid() != 0 or shutil.which("setpriv") is None, reason="needs root and setpriv")
async def test_a_user_who_may_not(tmp_path: Path) -> None:
    """Another user gets the advice to run the command as the server's user or as root."""
    # Who may read every file, since the folder of this test is closed to others.
    reads = "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"
    command = [shutil.which("setpriv") or "", "--reuid=65534", "--clear-groups", *reads, sys.executable]
    run = await asyncio.to_thread(
        subprocess.run,
        [*command, "-m", "sessionctl", "reload", "--data", str(tmp_path / "data")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (run.returncode, run.stderr.count("\n")) == (1, 1), run.stderr
    assert "run this as its user or as root" in run.stderr
