"""The command line's root."""

from __future__ import annotations

import click

from sessionctl import history, sessions
from sessionctl.checking import check_config
from sessionctl.data import data
from sessionctl.failures import Group
from sessionctl.locks import locks
from sessionctl.policies import policies
from sessionctl.reloading import reload
from sessionctl.settings import global_options

__all__ = ["main"]


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="sessiond")
@global_options
def main() -> None:
    """Look into a session authority, end sessions, unlock sources.

    The global options may stand before or after a command. A token is read from standard input or a hidden prompt,
    never from an argument or the environment. Exit codes: 0 done; 1 refused or out of reach; 2 wrong usage, or a
    configuration that cannot be used; 3 not valid (`validate`); 130 interrupted.
    """


for command in (*sessions.COMMANDS, data, *history.COMMANDS, locks, policies, reload, check_config):
    main.add_command(command)
