"""Checks the arguments of every public call against their annotations, in one place.

What does not fit raises `InvalidArgument` before anything is sent, with a violation for each argument: its name and
what is wanted, never its value, which may be a secret. What fits is made uniform: text that stands for a token becomes
a `Token`, an iterable becomes a tuple. So a call's function gets each argument in one form only.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Annotated, Any, Literal, ParamSpec, TypeVar, Union

from sessiond_client.errors import InvalidArgument, Violation
from sessiond_client.kinds import Between, Each, Lenient
from sessiond_client.tokens import Token

__all__ = ["check_value", "checked", "refusal"]

P = ParamSpec("P")
T = TypeVar("T")

_LONGEST = timedelta(seconds=315_576_000_000)  # of google.protobuf.Duration: 10,000 years


@dataclass(frozen=True, slots=True)
class _Check:
    """How values of one annotation are checked."""

    wanted: str
    """In words, after "must be"."""
    accepts: Callable[[Any], bool]
    """Whether the value is of this kind at all."""
    convert: Callable[[str, Any, list[Violation]], Any]
    """Its uniform form. Notes a violation for each part that does not fit; the argument is the path of the value."""

    def apply(self, path: str, value: Any, violations: list[Violation]) -> Any:
        """The uniform form of a value that may be of another kind."""
        if self.accepts(value):
            return self.convert(path, value, violations)
        kind = "None" if value is None else type(value).__name__
        violations.append(Violation(path, f"must be {self.wanted}, not {kind}"))
        return value


def checked(function: Callable[P, T]) -> Callable[P, T]:
    """Check the arguments of a function, as its annotations say, before it runs. Raises `InvalidArgument`."""

    @functools.wraps(function)
    def checking(*args: Any, **kwargs: Any) -> T:
        names, checks = _checks_of(function)
        violations: list[Violation] = []
        given = [checks[name].apply(name, value, violations) for name, value in zip(names, args, strict=False)]
        named = {
            name: checks[name].apply(name, value, violations) if name in checks else value
            for name, value in kwargs.items()
        }
        if violations:
            raise refusal(*violations)
        return function(*given, *args[len(given) :], **named)  # Python itself refuses missing and unknown arguments

    return checking


def check_value(kind: type[T], value: T) -> T:
    """Check each field of a dataclass. Raises `InvalidArgument`."""
    violations: list[Violation] = []
    value = _check_for(typing.cast(Any, kind)).apply("", value, violations)
    if violations:
        raise refusal(*violations)
    return value


def refusal(*violations: Violation) -> InvalidArgument:
    """The exception for arguments that were refused here."""
    text = "; ".join(f"{violation.field}: {violation.description}" for violation in violations)
    return InvalidArgument(text, violations=violations)


@functools.cache
def _checks_of(function: Callable[..., Any]) -> tuple[tuple[str, ...], Mapping[str, _Check]]:
    """The names of the positional parameters, and the check of each parameter. At the first call, not at import."""
    hints = typing.get_type_hints(function, include_extras=True)
    parameters = inspect.signature(function).parameters.values()
    positional = tuple(item.name for item in parameters if item.kind is item.POSITIONAL_OR_KEYWORD)
    return positional, {item.name: _check_for(hints[item.name]) for item in parameters}


@functools.cache
def _check_for(hint: Any) -> _Check:
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _marked(parts[0], parts[1])
    if origin in (Union, types.UnionType):
        return _any_of(parts)
    if origin is Literal:
        return _is(lambda value: any(value is part or _same_text(value, part) for part in parts), _literals(parts))
    if origin is tuple:
        return _items(parts[0]) if parts[-1] is Ellipsis else _row(parts)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _mapping(*parts)
    if origin is not None and issubclass(origin, Callable):  # type: ignore[arg-type]  # an abstract class at run time
        return _is(callable, "a function")
    if hint is Any:
        return _is(lambda _: True, "anything")
    if dataclasses.is_dataclass(hint):
        return _fields(typing.cast(type, hint))
    if issubclass(hint, Enum):
        return _member(hint)
    return _PLAIN.get(hint) or _is(lambda value: isinstance(value, hint), _name(hint))


def _as_is(path: str, value: Any, violations: list[Violation]) -> Any:
    return value


def _is(accepts: Callable[[Any], bool], wanted: str) -> _Check:
    return _Check(wanted, accepts, _as_is)


def _name(hint: type) -> str:
    return f"{'an' if hint.__name__[0] in 'AEIO' else 'a'} {hint.__name__}"


def _same_text(value: Any, part: Any) -> bool:
    return isinstance(value, str) and isinstance(part, str) and value == part


def _literals(parts: tuple[Any, ...]) -> str:
    return " or ".join(part.name if isinstance(part, Enum) else repr(part) for part in parts)


def _text(path: str, value: str, violations: list[Violation]) -> str:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            violations.append(Violation(path, "must be text that UTF-8 can encode: it has a lone surrogate"))
    return str(value)


def _aware(path: str, value: datetime, violations: list[Violation]) -> datetime:
    try:
        if value.utcoffset() is None:
            violations.append(Violation(path, "must be a datetime with a time zone: this one could be any zone's"))
        else:
            value.astimezone(UTC)
    except OverflowError:
        violations.append(Violation(path, "must be a datetime from year 1 to 9999 in UTC"))
    return value


def _span(path: str, value: timedelta, violations: list[Violation]) -> timedelta:
    if not -_LONGEST <= value <= _LONGEST:
        violations.append(Violation(path, "must be a timedelta of at most 10,000 years"))
    return value


def _token(path: str, value: str | Token, violations: list[Violation]) -> Token:
    return Token(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_PLAIN: dict[Any, _Check] = {
    type(None): _is(lambda value: value is None, "None"),
    bool: _is(lambda value: isinstance(value, bool), "True or False"),
    int: _is(_is_whole, "a whole number"),
    float: _is(_is_number, "a number"),
    bytes: _is(lambda value: isinstance(value, bytes), "bytes"),
    str: _Check("text", lambda value: isinstance(value, str), _text),
    datetime: _Check("a datetime", lambda value: isinstance(value, datetime), _aware),
    timedelta: _Check("a timedelta", lambda value: isinstance(value, timedelta), _span),
    Token: _Check("a token (a Token or text)", lambda value: isinstance(value, (str, Token)), _token),
}


def _marked(hint: Any, mark: Any) -> _Check:
    """An annotation with a mark of `kinds`."""
    if isinstance(mark, Between):
        return _between(_check_for(hint), mark)
    if isinstance(mark, Lenient):
        return _is(lambda value: isinstance(value, str), "text")  # `convert` replaces what cannot be encoded
    if isinstance(mark, Each):
        return _items(typing.get_args(typing.get_args(hint)[0])[0])
    raise TypeError(f"no check for {mark!r}")


def _between(plain: _Check, mark: Between) -> _Check:
    def convert(path: str, value: Any, violations: list[Violation]) -> Any:
        if not mark.least <= value <= mark.most:  # NaN is not either
            violations.append(Violation(path, f"must be {plain.wanted} from {mark.least} to {mark.most}"))
        return value

    return _Check(plain.wanted, plain.accepts, convert)


def _any_of(parts: tuple[Any, ...]) -> _Check:
    # Text stands for a token where a token is expected, so that no `str` of it goes further than here.
    members = [_check_for(part) for part in parts if not (part is str and Token in parts)]

    if len(members) == 1:
        return members[0]

    def convert(path: str, value: Any, violations: list[Violation]) -> Any:
        return next(member for member in members if member.accepts(value)).convert(path, value, violations)

    wanted = ", ".join(member.wanted for member in members[:-1]) + " or " + members[-1].wanted
    return _Check(wanted, lambda value: any(member.accepts(value) for member in members), convert)


def _items(part: Any) -> _Check:
    item = _check_for(part)

    def accepts(value: Any) -> bool:
        return isinstance(value, Iterable) and not isinstance(value, (str, bytes, bytearray, Mapping))

    def convert(path: str, value: Any, violations: list[Violation]) -> tuple[Any, ...]:
        return tuple(item.apply(f"{path}[{index}]", entry, violations) for index, entry in enumerate(value))

    return _Check(f"a list or other iterable, each item {item.wanted}", accepts, convert)


def _row(parts: tuple[Any, ...]) -> _Check:
    items = [_check_for(part) for part in parts]

    def convert(path: str, value: Any, violations: list[Violation]) -> tuple[Any, ...]:
        pairs = zip(items, value, strict=True)
        return tuple(item.apply(f"{path}[{index}]", entry, violations) for index, (item, entry) in enumerate(pairs))

    wanted = f"a tuple of {len(items)}: {', '.join(item.wanted for item in items)}"
    return _Check(wanted, lambda value: isinstance(value, (tuple, list)) and len(value) == len(items), convert)


def _mapping(key_hint: Any, value_hint: Any) -> _Check:
    keys, values = _check_for(key_hint), _check_for(value_hint)

    def convert(path: str, value: Any, violations: list[Violation]) -> dict[Any, Any]:
        return {
            keys.apply(f"a key of {path}", key, violations): values.apply(
                f"{path}[{key!r}]" if isinstance(key, str) else path, entry, violations
            )
            for key, entry in value.items()
        }

    wanted = f"a mapping of {keys.wanted} to {values.wanted}"
    return _Check(wanted, lambda value: isinstance(value, Mapping), convert)


def _member(kind: type[Enum]) -> _Check:
    def accepts(value: Any) -> bool:
        return isinstance(value, kind) or (isinstance(value, str) and value in {item.value for item in kind})

    return _Check(f"{_name(kind)}", accepts, lambda path, value, violations: kind(value))


def _fields(kind: type) -> _Check:
    checks: dict[str, _Check] = {}

    def convert(path: str, value: Any, violations: list[Violation]) -> Any:
        if not checks:  # not before the first value: a field may be of a type that is defined later
            hints = typing.get_type_hints(kind, include_extras=True)
            checks.update({field.name: _check_for(hints[field.name]) for field in dataclasses.fields(kind)})
        changed = {}
        for name, check in checks.items():
            old = getattr(value, name)
            new = check.apply(f"{path}.{name}" if path else name, old, violations)
            if new is not old:
                changed[name] = new
        return dataclasses.replace(value, **changed) if changed and not violations else value

    return _Check(_name(kind), lambda value: isinstance(value, kind), convert)
