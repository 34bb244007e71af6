"""`python -m sessionctl`: the same as the installed command."""

from sessionctl import main

main(prog_name="sessionctl")
