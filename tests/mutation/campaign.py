"""A campaign: run the tests against one mutant after another, in several copies of the tree, until time is up."""

from __future__ import annotations

import enum
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

from tests.mutation.copies import Copy, Run, first_fault, named_in
from tests.mutation.equivalence import is_equivalent_by_construction
from tests.mutation.mutants import Change, Mutant
from tests.mutation.recording import CHOSEN, Recording, load_or_record, tests_for

__all__ = ["Campaign", "Fate", "Plan", "Result"]


_START_SECONDS = 90
"""What pytest gets to start and to collect; a hanging test ends much sooner."""
_QUICK = ("-x", "-v", "-p", "no:xdist", "-p", "no:pytest_cov")


class Fate(enum.StrEnum):
    """What became of a mutant."""

    KILLED = "killed"
    TIMEOUT = "timeout"
    SURVIVED = "survived"
    EQUIVALENT = "equivalent"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Result:
    """A mutant and its fate; `detail` names the test that killed it or hung, or the reason why no test can."""

    change: Change
    line: int
    fate: Fate
    detail: str = ""


@dataclass(frozen=True)
class Plan:
    """What a campaign does. `judged` are the mutants known to be equivalent; `rechecks` runs just those.

    A test times out after `patience`, in seconds, and five times what it took on the unmutated tree.
    """

    root: Path
    tests: tuple[str, ...]
    ignored: tuple[str, ...]
    judged: Mapping[Change, str]
    workers: int = 2
    seconds: float = 1_200
    limit: int | None = None
    patience: float = 10
    rechecks: bool = False


class Campaign:
    """A recording of the unmutated tree and one copy of it for each worker. Ends its processes when it is left."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._folder = Path(tempfile.mkdtemp(prefix="mutate-")).resolve()
        self._copies = [Copy(plan.root, self._folder / "0")]
        self._kills: Counter[str] = Counter()
        self._lock = threading.Lock()
        try:
            self.recording = self._prepared()
        except BaseException:
            self.close()
            raise
        self._idle = list(self._copies)

    def _prepared(self) -> Recording:
        (first,) = self._copies
        recording = load_or_record(first, self._plan.tests, self._plan.ignored, self._plan.root / "build" / "mutation")
        # So that no mutant has to compile the tests: each copy has the bytecode of the first.
        first.pytest(["-q", "--collect-only", *self._plan.tests], writes_bytecode=True)
        self._copies += [Copy(first.root, self._folder / str(number)) for number in range(1, self._plan.workers)]
        return recording

    def close(self) -> None:
        """End what still runs, and remove the copies."""
        for copy in self._copies:
            copy.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def run(self, mutants: Sequence[Mutant], heard: Callable[[Result], None]) -> None:
        """Try the mutants in their order; `heard` gets each result. Those under way when time is up are finished."""
        waiting = self._until_time_is_up(mutants)
        running: set[Future[Result]] = set()
        with ThreadPoolExecutor(self._plan.workers) as pool:
            try:
                while True:
                    while len(running) < self._plan.workers and (mutant := next(waiting, None)) is not None:
                        running.add(pool.submit(self._try, mutant))
                    if not running:
                        return
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        heard(future.result())
            except BaseException:
                for copy in self._copies:
                    copy.stop()
                raise

    def _until_time_is_up(self, mutants: Sequence[Mutant]) -> Iterator[Mutant]:
        end = time.monotonic() + self._plan.seconds
        for mutant in mutants[: self._plan.limit]:
            if time.monotonic() >= end:
                return
            yield mutant

    def _try(self, mutant: Mutant) -> Result:
        change = mutant.change()
        if is_equivalent_by_construction(mutant.tree.code, mutant.source):
            return Result(change, mutant.line, Fate.SKIPPED)
        reason = self._plan.judged.get(change)
        if reason is not None and not self._plan.rechecks:
            return Result(change, mutant.line, Fate.EQUIVALENT, reason)
        if reason is None and self._plan.rechecks:
            return Result(change, mutant.line, Fate.SKIPPED)
        with self._lock:
            copy = self._idle.pop()
            batches = tests_for(mutant, self.recording, self._kills)
        try:
            with copy.changed(mutant.module, mutant.source):
                fate, detail = self._test(copy, batches)
        finally:
            with self._lock:
                self._idle.append(copy)
        if fate is Fate.SURVIVED and not self.recording.covering(mutant):
            detail = "no test executes it"
        return Result(change, mutant.line, fate, detail)

    def _test(self, copy: Copy, batches: Sequence[Sequence[str]]) -> tuple[Fate, str]:
        for batch in batches:
            run = self._run(copy, batch)
            if run.timed_out:
                # Or the machine was busy: the test must prove it alone, with more time.
                suspects = [run.hung] if run.hung in batch else batch
                run = self._run(copy, suspects, patience=4)
                if run.passed and len(suspects) < len(batch):
                    run = self._run(copy, batch, patience=4)
            if run.timed_out:
                return Fate.TIMEOUT, run.hung
            if not run.passed:
                killers = named_in(run.output, batch)
                with self._lock:
                    self._kills.update(killers)
                return Fate.KILLED, killers[0] if killers else first_fault(run.output)
        return Fate.SURVIVED, ""

    def _run(self, copy: Copy, batch: Sequence[str], patience: float = 1) -> Run:
        usual = [self.recording.seconds[test] for test in batch]
        run = partial(
            copy.pytest,
            seconds_a_test=patience * (self._plan.patience + 5 * max(usual)),
            seconds=patience * (_START_SECONDS + 10 * sum(usual)),
        )
        names = copy.root / ".batch"
        names.write_text("\n".join(batch), encoding="utf-8")
        ended = run([*_QUICK, f"@{names}"])
        if ended.code != pytest.ExitCode.USAGE_ERROR:
            return ended
        # A test is not found: the mutant breaks an import, or only changes what a parameter is called.
        files = dict.fromkeys(test.partition("::")[0] for test in batch)
        return run([*_QUICK, *CHOSEN, *(f"--deselect={test}" for test in self.recording.failing), *files])
