"""The package installs with what it says it needs, loads quickly, and shows what its methods take and return."""

from __future__ import annotations

import inspect
import os
import pydoc
import re
import subprocess
import sys
import tomllib
import typing
from pathlib import Path
from typing import Any

import grpc
import pytest

import sessiond_client
from sessiond.app import App
from sessiond_client import AsyncClient, Client, Created, Session, Validation
from tests.clients.calls_of import CALLS
from tests.clients.either import CLIENTS, Either, Kind

ROOT = Path(__file__).parents[2]
STUBS = ROOT / "clients" / "python" / "src" / "sessiond_stubs" / "v1"


# Dependencies


def version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def floors(project: Path) -> dict[str, tuple[int, ...]]:
    """The lower end of each range."""
    dependencies = tomllib.loads(project.read_text(encoding="utf-8"))["project"]["dependencies"]
    found = (re.match(r"([\w-]+)>=([\d.]+)", dependency) for dependency in dependencies)
    return {match[1]: version(match[2]) for match in found if match}


@pytest.mark.parametrize("project", [ROOT / "clients" / "python" / "pyproject.toml", ROOT / "pyproject.toml"])
def test_the_oldest_dependencies_can_import_the_stubs(project: Path) -> None:
    """The ranges begin at the versions that the generated code checks for when it is imported."""
    messages = (STUBS / "session_authority_pb2.py").read_text(encoding="utf-8")
    services = (STUBS / "session_authority_pb2_grpc.py").read_text(encoding="utf-8")
    checked = re.search(r"ValidateProtobufRuntimeVersion\(\s*[\w.]+,\s*(\d+),\s*(\d+),\s*(\d+),", messages)
    generated = re.search(r"GRPC_GENERATED_VERSION = '([\d.]+)'", services)
    assert checked
    assert generated
    assert floors(project)["protobuf"] >= tuple(int(part) for part in checked.groups())
    assert floors(project)["grpcio"] >= version(generated[1])
    assert floors(project)["grpcio-status"] >= version(generated[1])


def test_the_version_is_that_of_the_distribution() -> None:
    """`__version__` is what pyproject.toml says."""
    project = tomllib.loads((ROOT / "clients" / "python" / "pyproject.toml").read_text(encoding="utf-8"))
    assert sessiond_client.__version__ == project["project"]["version"]


def test_a_source_tree_without_metadata_has_a_version_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the distribution is not installed, `__version__` says that it is unknown, and nothing fails."""

    def missing(name: str) -> str:
        from importlib.metadata import PackageNotFoundError

        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", missing)
    assert sessiond_client.__version__ == "0+unknown"


# Loading


def test_names_are_found_when_they_are_used() -> None:
    """Every name of the package is there, by attribute, by `dir` and by `from`; others are AttributeErrors."""
    assert set(sessiond_client.__all__) <= set(dir(sessiond_client))
    assert all(getattr(sessiond_client, name) is not None for name in sessiond_client.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        sessiond_client.Nothing  # noqa: B018 - reading it is the test


def seconds(tmp_path: Path, statement: str) -> float:
    """How long a statement takes in a fresh interpreter that has imported gRPC already; the best of five."""
    program = (
        f"import time, grpc, grpc.aio\nbegun = time.perf_counter()\n{statement}\nprint(time.perf_counter() - begun)"
    )
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(tmp_path), "PYTHONDONTWRITEBYTECODE": ""}
    runs = [subprocess.check_output([sys.executable, "-c", program], env=environment, text=True) for _ in range(6)]
    return min(float(run) for run in runs[1:])  # the first one compiles


@pytest.mark.measured
def test_importing_the_package_costs_little_beside_grpc(tmp_path: Path) -> None:
    """The package takes at most a tenth of gRPC's time; with a client, which needs the messages, at most twice it."""
    program = "import time; begun = time.perf_counter(); import grpc, grpc.aio; print(time.perf_counter() - begun)"
    library = min(float(subprocess.check_output([sys.executable, "-c", program], text=True)) for _ in range(5))
    assert seconds(tmp_path, "import sessiond_client") < library / 10
    assert seconds(tmp_path, "from sessiond_client import Client") < library * 2


def test_the_package_loads_nothing_that_is_not_used() -> None:
    """Importing the package, or an enumeration from it, loads neither gRPC nor the messages."""
    program = (
        "import sys, sessiond_client; from sessiond_client import Verdict\n"
        "assert not {'grpc', 'google.protobuf', 'sessiond_client.sync'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# What a reader sees


@pytest.mark.parametrize("name", CALLS)
def test_a_method_shows_what_it_returns(name: str) -> None:
    """Each method has a return type that `help` shows: one answer, or an iterator of items."""
    sync, asynchronous = (inspect.signature(getattr(kind, name)).return_annotation for kind in (Client, AsyncClient))
    assert asynchronous == (f"Async{sync}" if sync.startswith("Iterator") else sync)
    text = pydoc.render_doc(getattr(Client, name), renderer=pydoc.plaintext)  # type: ignore[attr-defined]  # it is there
    assert f"-> {sync!r}" in text or f"-> {sync}" in text


def test_the_types_of_a_method_can_be_resolved() -> None:
    """`typing.get_type_hints` finds the types of a method's parameters and of its answer."""
    assert typing.get_type_hints(Client.create)["return"] is Created
    assert typing.get_type_hints(AsyncClient.validate)["return"] is Validation
    assert typing.get_args(typing.get_type_hints(Client.list)["return"]) == (Session,)
    assert typing.get_type_hints(Client.create)["persistent"] is bool


@pytest.mark.parametrize("kind", CLIENTS)
def test_a_client_shows_its_options(kind: Kind) -> None:
    """`help` shows each option of a client with its default."""
    parameters = inspect.signature(kind).parameters
    assert next(iter(parameters)) == "target"
    assert parameters["retries"].default == 4
    assert (parameters["timeout"].default, parameters["safe_retries"].default) == (5.0, True)
    assert {"interceptors", "channel_options", "application", "credentials"} < set(parameters)


# Interceptors


class Noting(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    """Notes the calls of a channel for threads."""

    def __init__(self, seen: list[Any]) -> None:
        self.seen = seen

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        self.seen.append(client_call_details.method)
        return continuation(client_call_details, request)

    intercept_unary_stream = intercept_unary_unary


class NotingCalls(grpc.aio.UnaryUnaryClientInterceptor):
    """Notes the calls of an asynchronous channel."""

    def __init__(self, seen: list[Any]) -> None:
        self.seen = seen

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        self.seen.append(client_call_details.method)
        return await continuation(client_call_details, request)


class NotingStreams(grpc.aio.UnaryStreamClientInterceptor):
    """Notes the streams of an asynchronous channel."""

    def __init__(self, seen: list[Any]) -> None:
        self.seen = seen

    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        self.seen.append(client_call_details.method)
        return await continuation(client_call_details, request)


@pytest.mark.parametrize("kind", CLIENTS)
async def test_interceptors_see_every_call(kind: Kind, app: App) -> None:
    """A caller's interceptors are asked for each call and for each stream."""
    seen: list[Any] = []
    interceptors = [Noting(seen)] if kind is Client else [NotingCalls(seen), NotingStreams(seen)]
    async with Either(kind, app.address, interceptors=interceptors) as client:
        await client.create(subject="ada")
        async with client.follow(start="earliest") as stream:
            assert (await stream.next()).subject == "ada"
    names = [name.decode() if isinstance(name, bytes) else name for name in seen]
    assert names == [f"/sessiond.v1.SessionAuthority/{name}" for name in ("CreateSession", "Subscribe")]
