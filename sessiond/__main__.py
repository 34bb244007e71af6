"""`python -m sessiond`."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - from a checkout, nothing else checks the version
    version = ".".join(str(part) for part in sys.version_info[:3])
    sys.stderr.write(
        f"Error: sessiond needs Python 3.11 or newer; {sys.executable} is Python {version}. Install a newer one.\n"
    )
    sys.exit(78)  # as for every start that cannot succeed until somebody changes something

from sessiond.cli import main

main(prog_name="sessiond")
