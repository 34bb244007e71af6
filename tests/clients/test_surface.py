"""Both clients have the same methods, the same parameters and the same documentation."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

import sessiond_client
from sessiond_client import AsyncClient, AsyncEvents, Client, Events

NOT_SHARED = {"aclose"}
"""What asyncio's idioms want of an iterator, and threads' do not."""


def surface(kind: type) -> dict[str, Any]:
    return {name: getattr(kind, name) for name in dir(kind) if not name.startswith("_")}


def parameters(function: Any) -> list[tuple[str, Any, Any]]:
    return [(item.name, item.kind, item.default) for item in inspect.signature(function).parameters.values()]


def test_both_are_made_in_the_same_way() -> None:
    """Async and sync take the same parameters, and retry safely by default."""
    assert parameters(AsyncClient) == parameters(Client)
    assert inspect.signature(Client).parameters["safe_retries"].default is True


@pytest.mark.parametrize(("one", "other"), [(AsyncClient, Client), (AsyncEvents, Events)])
def test_the_same_surface(one: type, other: type) -> None:
    """Async and sync have the same public names, with the same parameters."""
    left, right = surface(one), surface(other)
    assert set(left) - NOT_SHARED == set(right)
    for name, member in right.items():
        if callable(member):
            assert parameters(left[name]) == parameters(member), name


@pytest.mark.parametrize("kind", [AsyncClient, Client])
def test_the_whole_surface_is_there_and_documented(kind: type) -> None:
    """Each call of the contract that is served has its method, with a docstring and a deadline of its own."""
    calls = {
        *("create", "validate", "validate_many", "authenticate", "roll", "refresh", "revoke", "revoke_all"),
        *("get", "list", "list_page", "get_data", "update_data", "activity", "activity_page", "authority"),
        *("issue_companion_token", "report_signal"),
        *("list_source_locks", "list_source_locks_page", "clear_source_lock"),
        *("create_caller", "list_callers", "rotate_caller", "revoke_caller"),
        "update_caller_certificates",
        *("key_ring", "add_sealing_key", "promote_sealing_key", "retire_sealing_key"),
    }
    assert surface(kind).keys() == calls | {
        *("events", "backup", "close", "target", "application", "near_cache", "from_environment")
    }
    for name in calls:
        method = getattr(kind, name)
        assert inspect.getdoc(method), name
        assert "timeout" in inspect.signature(method).parameters, name
        assert next(iter(inspect.signature(method).parameters)) == "self", name


@pytest.mark.parametrize("kind", [AsyncClient, Client])
def test_help_describes_every_parameter(kind: type) -> None:
    """The docstring of each call names each of its parameters."""
    for name, method in surface(kind).items():
        if hasattr(method, "__wrapped__"):
            for parameter in list(inspect.signature(method).parameters)[1:]:
                assert f"`{parameter}`" in (inspect.getdoc(method) or ""), (name, parameter)


def test_what_is_exported_exists() -> None:
    """`__all__` names things that are there, each once."""
    assert len(set(sessiond_client.__all__)) == len(sessiond_client.__all__)
    assert all(hasattr(sessiond_client, name) for name in sessiond_client.__all__)


def test_a_client_shows_where_it_points() -> None:
    """A client's repr names target and application."""
    with Client("127.0.0.1:1", application="shop") as client:
        assert repr(client) == "<Client 127.0.0.1:1 application=shop>"
    assert repr(AsyncClient("unix:/run/s.sock")) == "<AsyncClient unix:/run/s.sock application=default>"
