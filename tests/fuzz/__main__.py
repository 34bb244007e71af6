"""`python -m tests.fuzz`: fuzz each target with atheris for some seconds, and keep inputs that reach new code.

Each target runs in a process of its own. Ends with 1 if a target failed, and prints where the input is that did it: a
file under `build/fuzz/found`. Add such an input to `tests/fuzz/corpus/TARGET` once the code is mended; the tests then
run it for good.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

_BUILD = Path("build/fuzz")
_LONGEST = 4_000
_INSTRUMENTED = ["sessiond", "sessionctl", "sessiond_client", "tomllib", "json"]


def _names() -> list[str]:
    from tests.fuzz.targets import TARGETS

    return list(TARGETS)


def _fuzz(name: str, seconds: int) -> None:
    """Fuzz one target in this process. Does not return."""
    import atheris  # type: ignore[import-untyped]  # not in the developers' environment

    with atheris.instrument_imports(include=_INSTRUMENTED):
        from tests.fuzz.targets import CORPUS, TARGETS, seeds_of
    new, found, given = (_BUILD / part / name for part in ("corpus", "found", "seeds"))
    for folder in (new, found, given):
        folder.mkdir(parents=True, exist_ok=True)
    for number, raw in enumerate(seeds_of(name)):
        (given / f"seed-{number}").write_bytes(raw)
    kept = [str(CORPUS / name)] if (CORPUS / name).is_dir() else []
    options = [
        f"-max_total_time={seconds}",
        f"-max_len={_LONGEST}",
        "-timeout=10",
        "-rss_limit_mb=2048",
        "-print_final_stats=1",
        f"-artifact_prefix={found}/",
    ]
    atheris.Setup([sys.argv[0], *options, str(new), str(given), *kept], TARGETS[name].run)
    atheris.Fuzz()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the targets that the arguments name, one after the other."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", help="the targets; all by default")
    parser.add_argument("--seconds", type=int, default=60, help="how long for each target (60)")
    parser.add_argument("--here", action="store_true", help="fuzz one target in this process")
    given = parser.parse_args(arguments)
    if find_spec("atheris") is None:
        parser.exit(1, "atheris is not installed, and nothing was fuzzed; run: make fuzz\n")
    if given.here:
        _fuzz(given.targets[0], given.seconds)
    if unknown := set(given.targets) - set(_names()):
        parser.error(f"no such target: {', '.join(sorted(unknown))}; there are {', '.join(_names())}")
    failed = []
    for name in given.targets or _names():
        log = _BUILD / f"{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as sink:
            command = [sys.executable, "-m", "tests.fuzz", "--here", "--seconds", str(given.seconds), name]
            code = subprocess.run(command, stdout=sink, stderr=subprocess.STDOUT, check=False).returncode
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        runs = next((line.split()[-1] for line in lines if "number_of_executed_units" in line), "0")
        sys.stdout.write(f"{name}: {runs} inputs, {'failed, see ' + str(log) if code else 'no fault'}\n")
        sys.stdout.flush()
        if code:
            failed.append(name)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
