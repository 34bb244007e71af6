"""Mutants that no test could kill: those equivalent by construction, and those that somebody judged so."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from tests.mutation.mutants import Change

__all__ = ["FILTERS", "is_equivalent_by_construction", "load_equivalent", "stale"]

FILTERS = (
    "imports, annotations, decorators (slots, frozen, caches) and __all__",
    "docstrings and other bare strings",
    "what stands under TYPE_CHECKING",
    "type aliases that only annotations use; names and arguments of NewType and TypeVar; the type of a cast",
    "the text of a log call, and the wording (a literal with a blank in it) of an exception that is raised",
    "the case of an encoding's name",
    "one false constant for another (None for False, '' for None), which mypy refuses",
    "source that does not compile",
)
"""What is skipped without a run, in words."""

_LOG_METHODS = {"debug", "info", "warning", "error", "exception", "critical"}
_TYPING_CALLS = {"NewType", "TypeVar", "ParamSpec"}
_ERASED = ast.Constant("erased")


def is_equivalent_by_construction(before: str, after: str) -> bool:
    """Whether two sources differ only in what the filters erase, or `after` does not compile."""
    try:
        compile(after, "mutant", "exec")
    except SyntaxError:
        return True
    return _normal_form(before) == _normal_form(after)


def load_equivalent(path: Path) -> dict[Change, str]:
    """The mutants judged equivalent, each with its reason. Raises `ValueError` for an entry that lacks a part."""
    table = tomllib.loads(path.read_text(encoding="utf-8"))
    parts = {"module", "function", "before", "after", "reason"}
    found = {}
    for entry in table.get("equivalent", []):
        if set(entry) != parts or not all(isinstance(value, str) for value in entry.values()) or not entry["reason"]:
            raise ValueError(f"{path.name}: an entry has the texts {', '.join(sorted(parts))}, not {entry}")
        reason = entry.pop("reason")
        found[Change(**entry)] = reason
    return found


def stale(judged: Mapping[Change, str], root: Path) -> list[Change]:
    """The entries whose module is gone or no longer has the lines they name."""
    sources = {change.module: root / change.module for change in judged}
    texts = {
        module: " ".join(line.strip() for line in path.read_text(encoding="utf-8").splitlines())
        for module, path in sources.items()
        if path.exists()
    }
    return [change for change in judged if change.before not in texts.get(change.module, "")]


@lru_cache(maxsize=100)
def _normal_form(source: str) -> str:
    tree = _Erase().visit(ast.parse(source))
    loaded = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    tree.body = [statement for statement in tree.body if not _is_unused_alias(statement, loaded)]
    return ast.dump(tree)


def _is_unused_alias(statement: ast.stmt, loaded: set[str]) -> bool:
    """Whether a module assigns a type's name (`NamedSession`, no constant) that only annotations use."""
    if not isinstance(statement, ast.Assign) or not isinstance(statement.targets[0], ast.Name):
        return False
    name = statement.targets[0].id.lstrip("_")
    return name[:1].isupper() and not name.isupper() and statement.targets[0].id not in loaded


class _Erase(ast.NodeTransformer):
    """Takes out of a tree what the filters name."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        if isinstance(node.value, ast.Constant):
            return None
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        node.annotation = _ERASED
        return self.generic_visit(node)

    def visit_If(self, node: ast.If) -> ast.AST | None:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return None
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        name = ast.unparse(node.func)
        if name in _TYPING_CALLS:
            return _ERASED
        if name == "cast" and node.args:
            node.args[0] = _ERASED
        receiver, _, method = name.rpartition(".")
        if method in _LOG_METHODS and "log" in receiver and node.args and _is_text_or_none(node.args[0]):
            node.args[0] = _ERASED
        return self.generic_visit(node)

    def visit_Raise(self, node: ast.Raise) -> ast.AST:
        if isinstance(node.exc, ast.Call):
            node.exc.args = [_ERASED if _is_wording(argument) else argument for argument in node.exc.args]
            for keyword in node.exc.keywords:
                keyword.value = _ERASED if _is_wording(keyword.value) else keyword.value
        return self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if node.value is False or node.value == "":
            return ast.Constant(None)
        if isinstance(node.value, str) and node.value.lower() in ("utf-8", "ascii"):
            node.value = node.value.lower()
        return node


def _is_text_or_none(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (
        isinstance(node, ast.Constant) and (node.value is None or isinstance(node.value, str))
    )


def _is_wording(node: ast.expr) -> bool:
    """Whether an exception's argument is a sentence (or the None in its place): a single word names something."""
    if isinstance(node, ast.Constant):
        return node.value is None or (isinstance(node.value, str) and " " in node.value)
    return isinstance(node, ast.JoinedStr) and any(
        isinstance(part, ast.Constant) and " " in str(part.value) for part in node.values
    )
