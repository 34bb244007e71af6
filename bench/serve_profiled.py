"""`sessiond` under cProfile: `python -m bench.serve_profiled FILE serve ...` writes the profile to FILE at the end.

Recording starts at SIGUSR1 and pauses at SIGUSR2, so that the profile contains only the measured runs. It contains
only the thread of the event loop, and not gRPC's core or SQLite's thread. Time that gRPC's compiled code spends in
this thread is attributed to the built-in method that calls it (`Context.run`).
"""

from __future__ import annotations

import cProfile
import signal
import sys

from sessiond.cli import main

if __name__ == "__main__":
    file, *arguments = sys.argv[1:]
    profile = cProfile.Profile()
    signal.signal(signal.SIGUSR1, lambda *_: profile.enable())
    signal.signal(signal.SIGUSR2, lambda *_: profile.disable())
    try:
        main(args=arguments, prog_name="sessiond", standalone_mode=False)
    finally:
        profile.disable()
        profile.dump_stats(file)
