"""The mutants of a module: mutmut's mutators, and two that it lacks, applied to one node each.

mutmut parses with libcst, which knows `match`; the parser of cosmic-ray does not (docs/decisions/0007-dependencies.md).
"""

from __future__ import annotations

import difflib
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import libcst as cst
from libcst import matchers
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation.mutators import mutation_operators

__all__ = ["Change", "Mutant", "find_mutants", "in_sample_order", "modules_of"]

Mutator = Callable[[Any], Iterable[cst.CSTNode]]


def _drop_call(statement: cst.Expr) -> Iterable[cst.CSTNode]:
    """`work.put(session)` becomes `pass`: a deed whose effect no test sees."""
    if isinstance(statement.value, cst.Call | cst.Await):
        yield cst.Pass()


def _negate(branch: cst.If | cst.While | cst.CompIf) -> Iterable[cst.CSTNode]:
    """`if x:` becomes `if not x:`. Comparisons, `and`, `or` and `not` have mutators in mutmut."""
    if isinstance(branch.test, cst.Name | cst.Attribute | cst.Call | cst.Await | cst.NamedExpr):
        bare = branch.test.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])
        yield branch.with_changes(test=cst.UnaryOperation(cst.Not(), bare))


_MUTATORS: Sequence[tuple[Any, Mutator]] = [
    *mutation_operators,
    (cst.Expr, _drop_call),
    (cst.If | cst.While | cst.CompIf, _negate),
]
_NEVER_MUTATED = (cst.Annotation, cst.Decorator, cst.Import, cst.ImportFrom)


def _is_declaration(node: cst.CSTNode) -> bool:
    """`__all__`, and type variables: they say something to tools, and nothing to the program."""
    return matchers.matches(
        node,
        matchers.Assign(targets=[matchers.AssignTarget(matchers.Name("__all__"))])
        | matchers.Assign(value=matchers.Call(func=matchers.Name("TypeVar"))),
    )


@dataclass(frozen=True)
class Change:
    """What a mutant changes, in terms that survive edits elsewhere in the file; the key of `equivalent.toml`."""

    module: str
    function: str
    before: str
    after: str


@dataclass(frozen=True, eq=False)
class Mutant:
    """One node of a module and what takes its place.

    `executed` has the lines from the start of the statement on: of a node in its midst coverage may know nothing.
    """

    module: str
    function: str
    line: int
    executed: range
    tree: cst.Module = field(repr=False)
    node: cst.CSTNode = field(repr=False)
    replacement: cst.CSTNode = field(repr=False)

    @cached_property
    def source(self) -> str:
        """The whole module with the change in it."""
        changed = self.tree.deep_replace(self.node, self.replacement)
        assert isinstance(changed, cst.Module)
        return changed.code

    def change(self) -> Change:
        """The lines that differ, without indentation."""
        removed, added = [], []
        for line in difflib.unified_diff(self.tree.code.splitlines(), self.source.splitlines(), n=0, lineterm=""):
            if line.startswith("-") and not line.startswith("---"):
                removed.append(line[1:].strip())
            elif line.startswith("+") and not line.startswith("+++"):
                added.append(line[1:].strip())
        return Change(self.module, self.function, " ".join(removed), " ".join(added))


class _Finder(cst.CSTVisitor):
    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self, module: str, tree: cst.Module) -> None:
        super().__init__()
        self.found: list[Mutant] = []
        self._module = module
        self._tree = tree
        self._scope: list[str] = []
        self._statements: list[int] = []

    def on_visit(self, node: cst.CSTNode) -> bool:
        if isinstance(node, _NEVER_MUTATED) or _is_declaration(node):
            return False
        if isinstance(node, cst.ClassDef | cst.FunctionDef):
            self._scope.append(node.name.value)
        if isinstance(node, cst.SimpleStatementLine | cst.BaseCompoundStatement):
            self._statements.append(self.get_metadata(PositionProvider, node).start.line)
        for kind, mutator in _MUTATORS:
            if isinstance(node, kind):
                self.found += [self._mutant(node, replacement) for replacement in mutator(node)]
        return True

    def on_leave(self, original_node: cst.CSTNode) -> None:
        if isinstance(original_node, cst.ClassDef | cst.FunctionDef):
            self._scope.pop()
        if isinstance(original_node, cst.SimpleStatementLine | cst.BaseCompoundStatement):
            self._statements.pop()

    def _mutant(self, node: cst.CSTNode, replacement: cst.CSTNode) -> Mutant:
        span = self.get_metadata(PositionProvider, node)
        executed = range(self._statements[-1], span.end.line + 1)
        return Mutant(self._module, ".".join(self._scope), span.start.line, executed, self._tree, node, replacement)


def modules_of(root: Path, targets: Sequence[str]) -> list[str]:
    """The Python files of folders and files named relative to `root`. Raises `FileNotFoundError`."""
    found: list[str] = []
    for target in targets:
        path = root / target
        if not path.exists():
            raise FileNotFoundError(f"{target}: no such file or folder")
        files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
        found += [file.relative_to(root).as_posix() for file in files]
    return list(dict.fromkeys(found))


def find_mutants(root: Path, modules: Iterable[str]) -> list[Mutant]:
    """Every mutant of these modules, in the order of their text."""
    found: list[Mutant] = []
    for module in modules:
        wrapper = MetadataWrapper(cst.parse_module((root / module).read_text(encoding="utf-8")))
        finder = _Finder(module, wrapper.module)
        wrapper.visit(finder)
        found += finder.found
    return found


def in_sample_order(mutants: Sequence[Mutant], seed: int) -> list[Mutant]:
    """The same order for the same seed: one mutant of each line first, then each line's second, and so on.

    A sample that ends early has then seen as many lines as it could; most lines have several mutants that die alike.
    """
    shuffled = list(mutants)
    random.Random(seed).shuffle(shuffled)
    seen: Counter[tuple[str, int]] = Counter()
    turns: list[tuple[int, Mutant]] = []
    for mutant in shuffled:
        place = (mutant.module, mutant.line)
        turns.append((seen[place], mutant))
        seen[place] += 1
    return [mutant for _, mutant in sorted(turns, key=lambda turn: turn[0])]
