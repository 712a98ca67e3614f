"""Mutants: copies of the product in which one check after the other can be switched off, made outside of it.

The product has no such switch. In a copy of its source every statement that refuses (it raises, yields a finding, or
returns a verdict) first asks :mod:`tests.mutants.runtime` whether it stands, and every verifier says that one is inside
of it. So one world of real processes serves all mutants, one at a time; the copy never changes while it runs, and what
devices measure of themselves is what their manufacturer has published.
"""

from __future__ import annotations

import ast
import json
import shutil
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from scripts.checks import SOURCE, Check, checks, factories, module_of, number_of, source

RUNTIME = Path(__file__).with_name("runtime.py")
VERDICTS = frozenset({"NotEnoughTrust", "MacFailure", "SyncFailure", "_rediscover"})
LEFT_ALONE = ("cli", "console", "bench", "testing")
"""Rooms that verify nothing."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One way in which one check refuses, switched off: inside ``scope``, with ``code`` or inside ``part``."""

    id: str
    scope: str
    code: str | None
    part: str | None
    number: int | None

    @classmethod
    def all(cls) -> tuple[Mutant, ...]:
        """Return the mutants of all checks."""
        return tuple(mutant for check in checks() for mutant in cls.of(check))

    @classmethod
    def of(cls, check: Check) -> tuple[Mutant, ...]:
        """Return the mutants of one check: one for each way in which it refuses."""
        known = source()
        made = factories(known.trees[_module(check.verifier)]).values()
        found = []
        for code in check.codes:
            number = check.number if code in made else None
            found.append(cls(f"{check.id}:{code}", check.verifier, code, None, number))
        for part in check.parts:
            name = known.functions[part].name
            found.append(cls(f"{check.id}:{name}", check.verifier, None, part, None))
        return tuple(found)


def _module(verifier: str) -> str:
    known = source()
    return known.functions[verifier].module if verifier in known.functions else verifier


@dataclass(frozen=True, slots=True)
class Tree:
    """A mutated copy, and an interpreter that runs it."""

    root: Path

    @property
    def python(self) -> Path:
        """The interpreter."""
        return self.root / "venv" / "bin" / "python"

    @property
    def active(self) -> Path:
        """The file that says what is switched off."""
        return self.root / "state" / "active"

    @property
    def heard(self) -> Path:
        """The file into which refusals are written while it is there."""
        return self.root / "state" / "heard"

    def switch_off(self, mutants: Iterable[Mutant]) -> None:
        """Switch these checks off, and no others."""
        fresh = self.active.with_suffix(".new")
        fresh.write_text(json.dumps([asdict(one) for one in mutants]))
        fresh.replace(self.active)


def make(root: Path) -> Tree:
    """Make a mutated copy in ``root``."""
    target = root / "source" / "firstlight"
    shutil.copytree(SOURCE, target, ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    scopes = _scopes()
    for path in sorted(SOURCE.rglob("*.py")):
        if path.relative_to(SOURCE).parts[0] in LEFT_ALONE:
            continue
        tree = Mutation(module_of(path), scopes).run(ast.parse(path.read_text()))
        (target / path.relative_to(SOURCE)).write_text(ast.unparse(tree))
    shutil.copy(RUNTIME, target / "_mutants.py")
    (root / "state").mkdir(parents=True)
    _interpreter(root / "venv", target.parent)
    return Tree(root)


def _interpreter(venv: Path, package: Path) -> None:
    """Make an environment that has what this one has, but the mutated package."""
    (venv / "bin").mkdir(parents=True)
    base = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    (venv / "bin" / "python").symlink_to(base)
    (venv / "pyvenv.cfg").write_text(f"home = {base.parent}\ninclude-system-site-packages = false\n")
    site = venv / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    site.mkdir(parents=True)
    (site / "mutants.pth").write_text(f"{package}\n{sysconfig.get_path('purelib')}\n")


def _scopes() -> Mapping[str, tuple[str, ...]]:
    """Return functions by name, with the names under which one is inside of them."""
    known = source()
    modules = {one.verifier for one in checks() if one.verifier not in known.functions}
    names = {name for check in checks() for name in (check.verifier, *check.parts)}
    found: dict[str, tuple[str, ...]] = {}
    for full, function in known.functions.items():
        entered = ((function.module,) if function.module in modules else ()) + ((full,) if full in names else ())
        if entered:
            found[full] = entered
    return found


class Mutation(ast.NodeTransformer):
    """Rewrites one module."""

    def __init__(self, module: str, scopes: Mapping[str, tuple[str, ...]]) -> None:
        """Rewrite ``module``, where functions in ``scopes`` are verifiers."""
        self._module = module
        self._scopes = scopes
        self._factories: dict[str, str] = {}
        self._names: list[str] = []

    def run(self, tree: ast.Module) -> ast.Module:
        """Return the module rewritten."""
        self._factories = factories(tree)
        self.visit(tree)
        first = next((at for at, node in enumerate(tree.body) if not _stays_in_front(node)), len(tree.body))
        tree.body.insert(first, ast.parse("from firstlight import _mutants").body[0])
        return ast.fix_missing_locations(tree)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        return self._named(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        return self._function(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> ast.AST:
        return self._function(node)

    def _named(self, node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        self._names.append(node.name)
        self.generic_visit(node)
        self._names.pop()
        return node

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        full = ".".join((self._module, *self._names, node.name))
        node.decorator_list = [one for one in node.decorator_list if not _caches(one)]
        self._named(node)
        if full not in self._scopes:
            return node
        head = node.body[:1] if ast.get_docstring(node, clean=False) is not None else []
        names = ", ".join(map(repr, self._scopes[full]))
        block = ast.parse(f"with _mutants.inside({names}): pass").body[0]
        assert isinstance(block, ast.With)
        block.body = node.body[len(head) :] or [ast.Pass()]
        node.body = [*head, block]
        return node

    def visit_Raise(self, node: ast.Raise) -> ast.AST | list[ast.stmt]:
        if not isinstance(node.exc, ast.Call | ast.Name):
            return node
        raised = ast.Raise(ast.Name("_refusal", ast.Load()), node.cause)
        return self._asking(node.exc, raised)

    def visit_Return(self, node: ast.Return) -> ast.AST | list[ast.stmt]:
        if isinstance(node.value, ast.Call) and _name(node.value.func) in VERDICTS:
            return self._asking(node.value, ast.Return(ast.Name("_refusal", ast.Load())))
        return node

    def visit_Expr(self, node: ast.Expr) -> ast.AST | list[ast.stmt]:
        made = node.value.value if isinstance(node.value, ast.Yield) else None
        if isinstance(made, ast.Call) and _name(made.func) == "Finding":
            return self._asking(made, ast.Expr(ast.Yield(ast.Name("_refusal", ast.Load()))))
        return self.generic_visit(node)

    def _asking(self, made: ast.Call | ast.Name, then: ast.stmt) -> list[ast.stmt]:
        """Return statements that make a refusal, and do ``then`` if it stands."""
        number = number_of(made) if isinstance(made, ast.Call) and _name(made.func) in self._factories else None
        test = ast.parse(f"_mutants.stands(_refusal, {number})", mode="eval").body
        return [ast.Assign([ast.Name("_refusal", ast.Store())], made), ast.If(test, [then], [])]


def _name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def _caches(decorator: ast.expr) -> bool:
    """Whether a decorator keeps answers: what a mutant has answered must not be there when it is over."""
    called = decorator.func if isinstance(decorator, ast.Call) else decorator
    return _name(called) == "lru_cache"


def _stays_in_front(node: ast.stmt) -> bool:
    docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return docstring or (isinstance(node, ast.ImportFrom) and node.module == "__future__")
