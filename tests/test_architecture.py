"""The architecture that no linter tells: what stands where, and what a test owes its reader."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import sessiond
from sessiond.store.contract import Store, Transaction
from sessiond.store.statements import load_statements

SERVER = Path(sessiond.__file__).parent
TESTS = Path(__file__).parent
MODULES = sorted(SERVER.rglob("*.py"))
TEST_FILES = sorted(TESTS.rglob("test_*.py")) + sorted((TESTS / "contracts").glob("*.py"))


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def calls(tree: ast.AST) -> set[str]:
    """Every dotted name that is called."""
    return {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}


def test_one_place_constructs_the_parts() -> None:
    """The concrete store and the journal are constructed by the composition root, and by what works without servers."""
    parts = {
        *(
            "SqliteStore.open",
            "PostgresStore.open",
            "Follower",
            "Lease",
            "Journal",
            "Feed",
            "SessionCache",
            "UnsavedActivity",
            "Authority",
            "Sweeper",
            "RpcServer",
            "SecurityLog",
        ),
        *(
            "TokenGate",
            "Suspicions",
            "ReportedSignals",
            "UseWatch",
            "GuessWatch",
            "FactReader",
            "PolicyBook",
            "Retries",
        ),
        *(
            "Validation",
            "Logins",
            "Sessions",
            "SessionData",
            "Reading",
            "FastPath",
            "Calls",
            "SessionMessages",
            "Refusals",
        ),
    }
    found = {path.name: calls(parsed(path)) & parts for path in MODULES if calls(parsed(path)) & parts}
    assert found.keys() == {"app.py", "restore_store.py"}
    assert found["restore_store.py"] == {"SqliteStore.open", "Journal"}


def classes() -> list[tuple[str, ast.ClassDef]]:
    """Every class of the server, with the path of its module."""
    return [
        (str(path.relative_to(SERVER)), node)
        for path in MODULES
        for node in ast.walk(parsed(path))
        if isinstance(node, ast.ClassDef)
    ]


def is_dataclass(node: ast.ClassDef) -> bool:
    return any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list)


LONG_CLASSES: dict[str, str] = {}
"""Classes that may have more than 250 lines, each with its reason. There is none."""


def test_no_class_is_long() -> None:
    """No class of the server has more than 250 lines: a longer one holds two ideas."""
    long = {node.name for _, node in classes() if (node.end_lineno or 0) - node.lineno + 1 > 250}
    assert long == set(LONG_CLASSES)


def test_no_constructor_takes_much() -> None:
    """No constructor outside dataclasses takes more than six parameters."""
    for module, node in classes():
        for method in node.body:
            if isinstance(method, ast.FunctionDef) and method.name == "__init__" and not is_dataclass(node):
                arguments = method.args
                count = len(arguments.posonlyargs) + len(arguments.args) + len(arguments.kwonlyargs) - 1
                assert count <= 6, f"{module}: {node.name} takes {count}"


def test_what_follows_from_a_judgement_stands_once() -> None:
    """The reactions that end or hold a session are told apart in `domain/reactions.py` alone."""
    reactions = {"Reaction.REVOKE_SESSION", "Reaction.REVOKE_SUBJECT"}
    found = {
        str(path.relative_to(SERVER))
        for path in MODULES
        if {ast.unparse(node) for node in ast.walk(parsed(path)) if isinstance(node, ast.Attribute)} & reactions
    }
    assert found == {
        "config/standards.py",  # judges configurations
        "detection/suspicions.py",  # a refused client does not take turns
        "domain/policy.py",  # the presets
        "domain/reactions.py",
    }


REVEALS = {
    "authority/requirements.py": "opens presented companion tokens, and hands on presented CSRF tokens",
    "authority/sessions.py": "opens the session token that a companion token is derived from",
    "authority/token_gate.py": "opens presented session tokens",
    "crypto/csrf.py": "compares a presented CSRF token with the session's, in constant time",
    "crypto/tickets.py": "opens presented tickets",
    "edge/check.py": "writes CSRF tokens into the headers of requests that a proxy passes on",
    "rpc/cookies.py": "writes Set-Cookie values",
    "rpc/encode.py": "writes tickets into answers",
    "rpc/service/callers.py": "writes the new key into the answer to its creation or rotation",
    "rpc/service/logins.py": "writes tokens into answers",
    "rpc/service/sessions.py": "writes the fresh token into the answer to a logout",
    "rpc/service/validation.py": "writes tokens into answers",
}
"""The modules of the server that may take a token's text, each with its reason."""


def test_a_token_is_revealed_at_the_edge_alone() -> None:
    """Only what hands a token to its client, opens a presented one or compares it takes its text."""
    found = {
        str(path.relative_to(SERVER))
        for path in MODULES
        if any(name.endswith(".reveal") for name in calls(parsed(path)))
    }
    assert found == set(REVEALS)


@pytest.mark.parametrize("protocol", [Store, Transaction])
def test_every_promise_of_the_store_is_written_down(protocol: type) -> None:
    """Each method of the stores' contract says in its docstring what a store must keep."""
    methods = {name: member for name, member in vars(protocol).items() if callable(member) and name[0] != "_"}
    assert methods
    assert all(member.__doc__ for member in methods.values())


def test_every_statement_is_used() -> None:
    """Each named statement is used by name, and each has its sentence."""
    source = "".join(path.read_text(encoding="utf-8") for path in (SERVER / "store").rglob("*.py"))
    text = (SERVER / "store" / "queries.sql").read_text(encoding="utf-8")
    statements = load_statements()
    assert text.count(";\n") == len(statements)
    assert [name for name in statements if f'"{name}"' not in source] == []


@pytest.mark.parametrize("path", TEST_FILES, ids=lambda path: str(path.relative_to(TESTS)))
def test_every_test_states_a_fact(path: Path) -> None:
    """Each test has a docstring of one paragraph that ends as a sentence does."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            fact = ast.get_docstring(node) or ""
            assert fact.endswith("."), node.name
            assert "\n\n" not in fact, node.name


def test_the_layers_hold() -> None:
    """Dependencies point down, as the import contracts of the project say."""
    lint = Path(sys.executable).with_name("lint-imports")
    if not lint.exists():
        pytest.skip("import-linter is not installed here")
    run = subprocess.run(
        [lint, "--no-cache"], check=False, cwd=TESTS.parent, env={"PYTHONPATH": "."}, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout
