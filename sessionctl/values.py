"""What the shell completes for values. Nothing here asks a server: a key press must not wait for one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from sessionctl.contexts import Contexts

__all__ = ["applications", "contexts", "files", "words"]

Completer = Callable[[click.Context, click.Parameter, str], "list[CompletionItem[str]] | list[str]"]


def words(possible: Iterable[str]) -> Completer:
    """Complete one of these words, which are in lower case, from any case."""
    known = list(possible)
    return lambda context, parameter, typed: [word for word in known if word.startswith(typed.lower())]


def files(context: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem[str]]:
    """Complete the path of a file, which the shell does itself."""
    from click.shell_completion import CompletionItem

    return [CompletionItem(typed, type="file")]


def contexts(context: click.Context, parameter: click.Parameter, typed: str) -> list[CompletionItem[str]]:
    """Complete the name of a context; the help is its target."""
    from click.shell_completion import CompletionItem

    return [
        CompletionItem(name, help=one.target)
        for name, one in sorted(_known().contexts.items())
        if name.startswith(typed)
    ]


def applications(context: click.Context, parameter: click.Parameter, typed: str) -> list[str]:
    """Complete an application that a context has."""
    named = {one.application for one in _known().contexts.values()}
    return sorted(name for name in named if name and name.startswith(typed) and name.isprintable())


def _known() -> Contexts:
    """The contexts; none if their file cannot be used, which the command itself will report."""
    from sessionctl.contexts import BadContexts, Contexts, load_contexts

    try:
        return load_contexts()
    except BadContexts:
        return Contexts()
