"""What the demo needs: an authority and a follower of its events, each in its own process, and an output."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from rich.console import Console
from rich.text import Text

__all__ = ["OVERLAP_SECONDS", "Authority", "Tail", "Teller", "until"]

OVERLAP_SECONDS = 1
"""How long the previous token stays valid after a renewal, in seconds."""

_PATIENCE = 15.0
_ALARMS = ("HIJACK_SUSPECTED", "GUESSING_SUSPECTED")
_POLICY = """\
[applications.{application}]
preset = "owasp-low"
renewal_timeout = "2s"
renewal_overlap = "{overlap}s"
elevation_timeout = "3s"
guessing = {{ alarm_after = 3, lock_after = 5 }}
"""


def until(what: str, condition: Callable[[], Any], patience: float = _PATIENCE) -> Any:
    """Repeat `condition` until its result is true, and return that. Raises TimeoutError after `patience` seconds."""
    give_up = time.monotonic() + patience
    while not (answer := condition()):
        if time.monotonic() >= give_up:
            raise TimeoutError(f"{what}: not within {patience:g} s")
        time.sleep(0.05)
    return answer


def _stop(process: subprocess.Popen[Any]) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Teller:
    """Prints short lines; events are marked and dimmed. Without colours if the output is not a terminal."""

    def __init__(self) -> None:
        self._console = Console(soft_wrap=True, highlight=False, markup=False)
        self._one_at_a_time = threading.Lock()

    def heading(self, text: str) -> None:
        """The beginning of a chapter."""
        self._say(Text.assemble("\n", (text, "bold")))

    def step(self, text: str) -> None:
        """A step that was carried out and checked."""
        self._say(Text.assemble(("  ok  ", "green"), text))

    def event(self, text: str, *, alarm: bool = False) -> None:
        """An event that the other process received."""
        self._say(Text.assemble(("        | event ", "dim"), (text, "bold red" if alarm else "dim")))

    def aside(self, text: str) -> None:
        """Details that matter only after a failure."""
        self._say(Text(text, "dim"))

    def failure(self, text: str) -> None:
        """The step that failed."""
        self._say(Text.assemble(("FAILED  ", "bold red"), text))

    def _say(self, text: Text) -> None:
        with self._one_at_a_time:
            self._console.print(text)


class Authority:
    """A temporary authority: a process with a folder, which is deleted at the end."""

    def __init__(self, application: str) -> None:
        self._application = application
        self.target = ""

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="sessiond-demo-")
        folder = Path(self._folder.name)
        config = folder / "sessiond.toml"
        config.write_text(_POLICY.format(application=self._application, overlap=OVERLAP_SECONDS))
        self._log = folder / "log"
        command = [sys.executable, "-m", "sessiond", "serve", "--data", str(folder / "data")]
        command += ["--listen", "127.0.0.1:0", "--config", str(config), "--log-format", "json"]
        with self._log.open("w") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _stop(self._process)
        self._folder.cleanup()

    def wait_until_serving(self) -> None:
        """Wait for its address in the log, and until its health is SERVING. Sets `target`."""
        self.target = until("the authority's address", self._address)
        with grpc.insecure_channel(self.target) as channel:
            health: Any = health_pb2_grpc.HealthStub(channel)  # generated without types

            def serving() -> bool:
                answer = health.Check(health_pb2.HealthCheckRequest(), timeout=_PATIENCE, wait_for_ready=True)
                return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

            until("health SERVING", serving)

    def log(self) -> str:
        """Everything that it has logged."""
        return self._log.read_text()

    def log_tail(self) -> str:
        """The last lines that it has logged."""
        return "\n".join(self.log().splitlines()[-20:])

    def _address(self) -> str:
        assert self._process.poll() is None, "the authority ended before it was ready"
        for line in self.log().splitlines():
            if line.startswith("{") and line.endswith("}"):
                entry = json.loads(line)
                if entry.get("event") == "serving" and "address" in entry:
                    return str(entry["address"])
        return ""


class Tail:
    """`sessionctl watch` in its own process. Prints each event when it arrives; `expect` waits for one."""

    def __init__(self, target: str, teller: Teller) -> None:
        self._target = target
        self._teller = teller
        self._lines: list[str] = []
        self._events: list[dict[str, Any]] = []
        self._following = False
        self._expected: set[int] = set()
        self._news = threading.Condition()

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "sessionctl", "watch", "--target", self._target]
        self._process = subprocess.Popen(
            [*command, "--json", "--checkpoints", "--earliest"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _stop(self._process)
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def wait_until_following(self) -> None:
        """Wait for the stream's first checkpoint."""
        with self._news:
            if not self._news.wait_for(lambda: self._following, _PATIENCE):
                raise TimeoutError("the event stream did not start")

    def expect(self, kind: str, session_id: str = "") -> dict[str, Any]:
        """Wait for an event of this type and session (empty: of no session) that no earlier call returned."""
        with self._news:
            if not self._news.wait_for(lambda: self._find(kind, session_id) is not None, _PATIENCE):
                raise TimeoutError(f"event {kind} did not arrive")
            found = self._find(kind, session_id)
            assert found is not None
            self._expected.add(found)
            return self._events[found]

    def output(self) -> str:
        """Everything that it has written."""
        with self._news:
            return "".join(self._lines)

    def revisions(self) -> list[int]:
        """The revisions that it has received, in order of arrival."""
        with self._news:
            return [int(event["revision"]) for event in self._events]

    def _find(self, kind: str, session_id: str) -> int | None:
        for index, event in enumerate(self._events):
            if index not in self._expected and event["type"] == kind and event["session_id"] == session_id:
                return index
        return None

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            item = json.loads(line)
            if item["kind"] == "event":
                self._teller.event(_event_text(item), alarm=item["type"] in _ALARMS)
            with self._news:
                self._lines.append(line)
                if item["kind"] == "event":
                    self._events.append(item)
                self._following = True
                self._news.notify_all()


def _event_text(event: dict[str, Any]) -> str:
    about = event["source"] or f"{event['subject'] or '(anonymous)'} ..{event['session_id'][-6:]}"
    text = f"#{event['revision']} {event['type']} {about} {event['cause']['reason']}".rstrip()
    for item in event["signals"]:
        text += f" - {item['type']}: expected {item['expected']}, seen {item['seen']}"
    return text if event["reaction"] == "UNSPECIFIED" else f"{text} - reaction {event['reaction']}"
