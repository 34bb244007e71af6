"""Checks the arguments of every public call against their annotations, in one place.

A wrong argument raises `InvalidArgument` before anything is sent. The violation has the argument's name and what is
expected, never its value, which may be a secret. Right arguments are normalized: text for a token becomes a `Token`, an
iterable becomes a tuple. So a call's function gets each argument in one form only.
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

__all__ = ["check_value", "checked", "invalid_argument"]

P = ParamSpec("P")
T = TypeVar("T")

_LONGEST = timedelta(seconds=315_576_000_000)  # the limit of google.protobuf.Duration: 10,000 years


@dataclass(frozen=True, slots=True)
class _Check:
    """How to check and normalize the values of one annotation."""

    expected: str
    """What is accepted, in words that follow "must be"."""
    accepts: Callable[[Any], bool]
    """Whether the value is of an accepted type."""
    convert: Callable[[str, Any, list[Violation]], Any]
    """Normalizes a value of an accepted type. Takes the value's path and adds a violation for each part that is
    wrong."""
    as_they_are: frozenset[type] = frozenset()
    """The types whose values are all accepted and need no change. Only they are not checked further."""
    accepted: frozenset[type] = frozenset()
    """Types whose values are all accepted; perhaps not the only ones."""

    def apply(self, path: str, value: Any, violations: list[Violation]) -> Any:
        """Normalize a value of any type; adds a violation if it is not accepted."""
        if type(value) in self.as_they_are:
            return value
        if type(value) in self.accepted or self.accepts(value):
            return self.convert(path, value, violations)
        kind = "None" if value is None else type(value).__name__
        violations.append(Violation(path, f"must be {self.expected}, not {kind}"))
        return value


def checked(function: Callable[P, T]) -> Callable[P, T]:
    """Make a function check and normalize its arguments by their annotations. It then raises `InvalidArgument`."""

    @functools.wraps(function)
    def checking(*args: Any, **kwargs: Any) -> T:
        names, checks = _checks_of(function)
        violations: list[Violation] = []
        given = []
        for name, value in zip(names, args, strict=False):
            check = checks[name]
            given.append(value if type(value) in check.as_they_are else check.apply(name, value, violations))
        for name, value in kwargs.items():
            if name in checks and type(value) not in (check := checks[name]).as_they_are:
                kwargs[name] = check.apply(name, value, violations)
        if violations:
            raise invalid_argument(*violations)
        return function(*given, *args[len(given) :], **kwargs)  # Python itself rejects missing and unknown ones

    return checking


def check_value(kind: type[T], value: T) -> T:
    """Check and normalize each field of a dataclass. Raises `InvalidArgument`."""
    violations: list[Violation] = []
    value = _check_for(typing.cast(Any, kind)).apply("", value, violations)
    if violations:
        raise invalid_argument(*violations)
    return value


def invalid_argument(*violations: Violation) -> InvalidArgument:
    """The exception for wrong arguments."""
    text = "; ".join(f"{violation.field}: {violation.description}" for violation in violations)
    return InvalidArgument(text, violations=violations)


@functools.cache
def _checks_of(function: Callable[..., Any]) -> tuple[tuple[str, ...], Mapping[str, _Check]]:
    """The names of the positional parameters, and the check of each parameter. Built at the first call."""
    hints = typing.get_type_hints(function, include_extras=True)
    parameters = inspect.signature(function).parameters.values()
    positional = tuple(item.name for item in parameters if item.kind is item.POSITIONAL_OR_KEYWORD)
    return positional, {item.name: _check_for(hints[item.name]) for item in parameters}


@functools.cache
def _check_for(hint: Any) -> _Check:
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _annotated(parts[0], parts[1])
    if origin in (Union, types.UnionType):
        return _union(parts)
    if origin is Literal:
        return _accepting(
            lambda value: any(value is part or _equal_texts(value, part) for part in parts), _literals(parts)
        )
    if origin is tuple:
        return _items(parts[0]) if parts[-1] is Ellipsis else _fixed_tuple(parts)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _mapping(*parts)
    if origin is not None and issubclass(origin, Callable):  # type: ignore[arg-type]  # at run time it is a class
        return _accepting(callable, "a function")
    if hint is Any:
        return _accepting(lambda _: True, "anything")
    if dataclasses.is_dataclass(hint):
        return _fields(typing.cast(type, hint))
    if issubclass(hint, Enum):
        return _enum_member(hint)
    return _PLAIN.get(hint) or _accepting(lambda value: isinstance(value, hint), _name(hint))


def _as_is(path: str, value: Any, violations: list[Violation]) -> Any:
    return value


def _accepting(accepts: Callable[[Any], bool], expected: str, *kinds: type) -> _Check:
    return _Check(expected, accepts, _as_is, frozenset(kinds))


def _name(hint: type) -> str:
    return f"{'an' if hint.__name__[0] in 'AEIO' else 'a'} {hint.__name__}"


def _equal_texts(value: Any, part: Any) -> bool:
    return isinstance(value, str) and isinstance(part, str) and value == part


def _literals(parts: tuple[Any, ...]) -> str:
    return " or ".join(part.name if isinstance(part, Enum) else repr(part) for part in parts)


def _text(path: str, value: str, violations: list[Violation]) -> str:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            violations.append(Violation(path, "must be a str that UTF-8 can encode; this one has a lone surrogate"))
    return str(value)


def _datetime(path: str, value: datetime, violations: list[Violation]) -> datetime:
    try:
        if value.utcoffset() is None:
            violations.append(Violation(path, "must be a datetime with a time zone; this one has none"))
        else:
            value.astimezone(UTC)
    except OverflowError:
        violations.append(Violation(path, "must be a datetime from year 1 to 9999 in UTC"))
    return value


def _duration(path: str, value: timedelta, violations: list[Violation]) -> timedelta:
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
    type(None): _accepting(lambda value: value is None, "None", type(None)),
    bool: _accepting(lambda value: isinstance(value, bool), "True or False", bool),
    int: _accepting(_is_whole, "a whole number"),
    float: _accepting(_is_number, "a number"),
    bytes: _accepting(lambda value: isinstance(value, bytes), "bytes", bytes),
    str: _Check("a str", lambda value: isinstance(value, str), _text, accepted=frozenset({str})),
    datetime: _Check("a datetime", lambda value: isinstance(value, datetime), _datetime),
    timedelta: _Check("a timedelta", lambda value: isinstance(value, timedelta), _duration),
    Token: _Check(
        "a token (Token or str)",
        lambda value: isinstance(value, (str, Token)),
        _token,
        as_they_are=frozenset({Token}),
        accepted=frozenset({str, Token}),
    ),
}


def _annotated(hint: Any, mark: Any) -> _Check:
    """The check for `Annotated[hint, mark]` with a mark from `kinds`."""
    if isinstance(mark, Between):
        return _between(_check_for(hint), mark)
    if isinstance(mark, Lenient):
        # `convert.client_message` replaces the characters that the authority would reject.
        return _accepting(lambda value: isinstance(value, str), "a str", str)
    if isinstance(mark, Each):
        return _items(typing.get_args(typing.get_args(hint)[0])[0])
    raise TypeError(f"no check for {mark!r}")


def _between(plain: _Check, mark: Between) -> _Check:
    def convert(path: str, value: Any, violations: list[Violation]) -> Any:
        if not mark.least <= value <= mark.most:  # also refuses NaN
            violations.append(Violation(path, f"must be {plain.expected} from {mark.least} to {mark.most}"))
        return value

    return _Check(plain.expected, plain.accepts, convert)


def _union(parts: tuple[Any, ...]) -> _Check:
    # `str | Token` is checked as a token: a `str` becomes a `Token` here, and its text goes no further.
    members = [_check_for(part) for part in parts if not (part is str and Token in parts)]

    if len(members) == 1:
        return members[0]
    by_type = {kind: member for member in members for kind in member.accepted}

    def accepts(value: Any) -> bool:
        return type(value) in by_type or any(member.accepts(value) for member in members)

    def convert(path: str, value: Any, violations: list[Violation]) -> Any:
        member = by_type.get(type(value)) or next(member for member in members if member.accepts(value))
        return member.convert(path, value, violations)

    expected = ", ".join(member.expected for member in members[:-1]) + " or " + members[-1].expected
    as_they_are = frozenset(kind for member in members for kind in member.as_they_are)
    return _Check(expected, accepts, convert, as_they_are, frozenset(by_type))


def _items(part: Any) -> _Check:
    item = _check_for(part)

    def accepts(value: Any) -> bool:
        return isinstance(value, Iterable) and not isinstance(value, (str, bytes, bytearray, Mapping))

    def convert(path: str, value: Any, violations: list[Violation]) -> tuple[Any, ...]:
        return tuple(item.apply(f"{path}[{index}]", entry, violations) for index, entry in enumerate(value))

    return _Check(f"a list or other iterable, each item {item.expected}", accepts, convert)


def _fixed_tuple(parts: tuple[Any, ...]) -> _Check:
    items = [_check_for(part) for part in parts]

    def convert(path: str, value: Any, violations: list[Violation]) -> tuple[Any, ...]:
        pairs = zip(items, value, strict=True)
        return tuple(item.apply(f"{path}[{index}]", entry, violations) for index, (item, entry) in enumerate(pairs))

    expected = f"a tuple of {len(items)}: {', '.join(item.expected for item in items)}"
    return _Check(expected, lambda value: isinstance(value, (tuple, list)) and len(value) == len(items), convert)


def _mapping(key_hint: Any, value_hint: Any) -> _Check:
    keys, values = _check_for(key_hint), _check_for(value_hint)

    def convert(path: str, value: Any, violations: list[Violation]) -> dict[Any, Any]:
        return {
            keys.apply(f"a key of {path}", key, violations): values.apply(
                f"{path}[{key!r}]" if isinstance(key, str) else path, entry, violations
            )
            for key, entry in value.items()
        }

    expected = f"a mapping of {keys.expected} to {values.expected}"
    return _Check(expected, lambda value: isinstance(value, Mapping), convert)


def _enum_member(kind: type[Enum]) -> _Check:
    def accepts(value: Any) -> bool:
        return isinstance(value, kind) or (isinstance(value, str) and value in {item.value for item in kind})

    return _Check(f"{_name(kind)}", accepts, lambda path, value, violations: kind(value))


def _fields(kind: type) -> _Check:
    checks: dict[str, _Check] = {}

    def convert(path: str, value: Any, violations: list[Violation]) -> Any:
        if not checks:  # built for the first value, because a field may have a type that is defined later
            hints = typing.get_type_hints(kind, include_extras=True)
            checks.update({field.name: _check_for(hints[field.name]) for field in dataclasses.fields(kind)})
        changed = {}
        for name, check in checks.items():
            old = getattr(value, name)
            if type(old) in check.as_they_are:
                continue
            new = check.apply(f"{path}.{name}" if path else name, old, violations)
            if new is not old:
                changed[name] = new
        return dataclasses.replace(value, **changed) if changed and not violations else value

    return _Check(_name(kind), lambda value: isinstance(value, kind), convert, accepted=frozenset({kind}))
