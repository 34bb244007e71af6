"""`sessiond` under cProfile: `python -m bench.serve_profiled FILE serve ...` writes the profile to FILE at the end.

Only the thread of the event loop is profiled; what gRPC's core and SQLite's thread do shows as time not here.
"""

from __future__ import annotations

import cProfile
import sys

from sessiond.cli import main

if __name__ == "__main__":
    file, *arguments = sys.argv[1:]
    profile = cProfile.Profile()
    try:
        profile.runcall(main, args=arguments, prog_name="sessiond", standalone_mode=False)
    finally:
        profile.dump_stats(file)
