"""`python -m sessiond.sessionctl`: the same as the installed command."""

from sessiond.sessionctl import main

main(prog_name="sessionctl")
