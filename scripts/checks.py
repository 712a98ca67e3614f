"""The checks of all verifiers, read from the source: each has an id, what must hold, and the codes of its refusals.

A verifier is a function (or a module) whose docstring numbers its checks. The id of a check is the verifier's name and
the number: ``plan.order.open_order.3``. What its text names in double backticks are the codes with which it refuses,
as far as the verifier's own functions, or those that it calls, have them; what it names as ``:func:`` or ``:meth:`` is
done there. Nothing is declared twice: docs and tests read what stands beside the code.
"""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "firstlight"
CODE = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
VERDICTS = {
    "NotEnoughTrust": "not-enough-trust",
    "MacFailure": "mac-failure",
    "SyncFailure": "sync-failure",
    "SequenceUsed": "sequence-used",
}
"""Answers that refuse without being raised, with what stands for their code."""
_REFUSING = frozenset(
    {"ProofError", "SignatureError", "RuleError", "RefusedError", "ExchangeError", "AccessError", "_Closed"},
)
"""What is raised because something does not hold (and not because bytes cannot be parsed, or a peer is away)."""


@dataclass(frozen=True, slots=True)
class Check:
    """One numbered check. ``codes`` are its own, ``parts`` the functions that make it (their names)."""

    verifier: str
    number: int
    text: str
    codes: tuple[str, ...]
    parts: tuple[str, ...]

    @property
    def id(self) -> str:
        """The check's id."""
        return f"{self.verifier}.{self.number}"

    @property
    def ways(self) -> tuple[str, ...]:
        """In which ways the check refuses: with each of its codes, and through each of its parts."""
        return (*self.codes, *(source().functions[part].name for part in self.parts))


@dataclass(frozen=True, slots=True)
class Function:
    """A function of the source, or a module whose docstring numbers the checks of all of its functions."""

    module: str
    name: str
    node: ast.AST = field(repr=False, compare=False)
    doc: str = field(repr=False, compare=False)

    @property
    def full(self) -> str:
        """The name with the module's: ``room.module.function``, without the package's."""
        return f"{self.module}.{self.name}" if self.name else self.module

    @property
    def short(self) -> str:
        """The last part of the name."""
        return self.name.rpartition(".")[2]


class Source:
    """All functions of the package, and who calls whom as far as names tell."""

    def __init__(self, root: Path = SOURCE) -> None:
        """Parse every module under ``root``."""
        self.trees = {module_of(path, root): ast.parse(path.read_text()) for path in sorted(root.rglob("*.py"))}
        self.functions: dict[str, Function] = {}
        self._by_module: dict[str, dict[str, list[Function]]] = {}
        for module, tree in self.trees.items():
            by_name = self._by_module.setdefault(module, {})
            for one in _functions(module, tree):
                self.functions[one.full] = one
                by_name.setdefault(one.short, []).append(one)
        self._calls: dict[str, tuple[Function, ...]] = {}
        self._imports = {module: dict(_imports(tree)) for module, tree in self.trees.items()}

    def verifiers(self) -> list[Function]:
        """Return whoever numbers checks."""
        modules = [Function(module, "", tree, ast.get_docstring(tree) or "") for module, tree in self.trees.items()]
        return [one for one in (*modules, *self.functions.values()) if numbered(one.doc)]

    def calls(self, caller: Function) -> tuple[Function, ...]:
        """Return whatever ``caller`` may call: by name in its module, by import, or as a method of what it imports."""
        if caller.full not in self._calls:
            self._calls[caller.full] = tuple(dict.fromkeys(self._called_by(caller)))
        return self._calls[caller.full]

    def _called_by(self, caller: Function) -> Iterator[Function]:
        imports = self._imports[caller.module]
        for node in ast.walk(caller.node):
            name, owner = _called(node)
            if name is None:
                continue
            yield from self._by_module[caller.module].get(name, ())
            if owner is None and name in imports:
                module, _, original = imports[name].rpartition(".")
                yield from self._by_module.get(module, {}).get(original, ())
            elif (owner, name) == ("signed", "verify"):
                yield self.functions["cose.Signed.verify"]
            elif owner is not None:
                yield from self._elsewhere(imports, owner, name)

    def _elsewhere(self, imports: Mapping[str, str], owner: str, name: str) -> Iterator[Function]:
        target = imports.get(owner)
        if target is not None and target in self._by_module:
            yield from self._by_module[target].get(name, ())
            return
        homes = {one if one in self._by_module else one.rpartition(".")[0] for one in imports.values()}
        homes &= self._by_module.keys()
        inside = {one for one in self._by_module for home in homes if f"{one}.".startswith(f"{home}.")}
        for module in sorted(inside):
            yield from (one for one in self._by_module[module].get(name, ()) if "." in one.name)

    def reach(self, start: Function) -> list[Function]:
        """Return ``start`` and all that it may call, directly or not."""
        first = [start]
        if not start.name:
            first = [one for many in self._by_module[start.module].values() for one in many]
        found = {one.full: one for one in first}
        todo = list(first)
        while todo:
            for one in self.calls(todo.pop()):
                if one.full not in found:
                    found[one.full] = one
                    todo.append(one)
        return list(found.values())

    def named(self, name: str, module: str) -> Function:
        """Return the function with a name that ends so: that of ``module``, or else a verifier."""
        fitting = [one for full, one in self.functions.items() if f".{full}".endswith(f".{name}")]
        fitting.sort(key=lambda one: (one.module != module, not numbered(one.doc), one.full))
        assert fitting, f"a check names {name}, and there is no such function"
        return fitting[0]


def module_of(path: Path, root: Path = SOURCE) -> str:
    """Return a module's name without the package's."""
    parts = path.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "firstlight"


@lru_cache(maxsize=1)
def source() -> Source:
    """Return the package's source, parsed once."""
    return Source()


@lru_cache(maxsize=1)
def checks() -> tuple[Check, ...]:
    """Return every numbered check, by verifier and number."""
    known = source()
    found = []
    for verifier in sorted(known.verifiers(), key=lambda one: one.full):
        reached = known.reach(verifier)
        codes, table = _codes(reached), _table(known.trees[verifier.module])
        for number, text in sorted(numbered(verifier.doc).items()):
            words = [*re.findall(r"``([a-z0-9-]+)``", text), *_verdicts(text)]
            own = [*(word for word in words if codes.get(word)), *_by_number(verifier.module, reached, number)]
            if verifier.full == TABLED:
                own = [*table[text.partition(":")[0]]]
            parts = tuple(known.named(name, verifier.module).full for name in dict.fromkeys(_references(text)))
            found.append(Check(verifier.full, number, text, tuple(dict.fromkeys(own)), parts))
    return tuple(found)


TABLED = "discovery.verify.verify_bundle"
"""The verifier whose codes stand in a table of their own, ``CHECKS``, by the names of its checks."""


def _table(tree: ast.Module) -> dict[str, tuple[str, ...]]:
    """Return the table ``CHECKS`` of a module, or nothing."""
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "CHECKS":
            assert isinstance(node.value, ast.Call)
            return dict(ast.literal_eval(node.value.args[0]))
    return {}


def factories(tree: ast.Module) -> dict[str, str]:
    """Return the functions that make the refusals of numbered checks (``_bad(3, "...")``), with their code."""
    found = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and [one.arg for one in node.args.args][:1] == ["check"]:
            made = next(one.value for one in node.body if isinstance(one, ast.Return))
            if isinstance(made, ast.Call) and isinstance(made.args[0], ast.Constant):
                found[node.name] = str(made.args[0].value)
    return found


def number_of(call: ast.Call) -> int | None:
    """Return the number of the check that a refusal names, if it does."""
    first = call.args[0] if call.args else None
    return first.value if isinstance(first, ast.Constant) and isinstance(first.value, int) else None


def _by_number(module: str, functions: Iterable[Function], number: int) -> Iterator[str]:
    """Yield the codes of refusals that name check ``number`` themselves."""
    makers = factories(source().trees[module])
    for one in functions:
        for node in ast.walk(one.node) if one.module == module else ():
            name, _ = _called(node)
            if isinstance(node, ast.Call) and name in makers and number_of(node) == number:
                yield makers[name]


def numbered(docstring: str) -> dict[int, str]:
    """Return the numbered checks of a docstring, each as one line of its source; nothing without a check 1 or more."""
    paragraphs = [" ".join(one.split()) for one in re.split(r"\n\s*\n", docstring)]
    text = " ".join(one for one in paragraphs if re.match(r"\d+\. ", one))
    parts = re.split(r"(?:^|(?<=[,;.)]) | (?=\d+\. [a-z`:]))(?=\d+\. )", text)
    pairs = (part.split(". ", 1) for part in parts if re.match(r"\d+\. ", part))
    return {int(number): said.rstrip(",; ") for number, said in pairs}


def strays() -> dict[str, list[str]]:
    """Return functions that refuse with a code that no numbered check names, with those codes."""
    known = source()
    named: dict[str, set[str]] = {}
    for one in checks():
        verifier = known.functions.get(one.verifier) or Function(one.verifier, "", known.trees[one.verifier], "")
        for reached in known.reach(verifier):
            named.setdefault(reached.full, set()).update(one.codes)
        for part in one.parts:
            named.setdefault(part, set()).update(_raised(known.functions[part]))
    left = {one.full: sorted(_raised(one) - named.get(one.full, set())) for one in known.functions.values()}
    return {name: codes for name, codes in left.items() if codes}


def _functions(module: str, tree: ast.Module) -> Iterator[Function]:
    def walk(node: ast.AST, prefix: str) -> Iterator[Function]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                yield Function(module, prefix + child.name, child, ast.get_docstring(child) or "")
                yield from walk(child, f"{prefix}{child.name}.")
            elif isinstance(child, ast.ClassDef):
                yield from walk(child, f"{prefix}{child.name}.")
            else:
                yield from walk(child, prefix)

    yield from walk(tree, "")


def _imports(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "firstlight":
            package = (node.module or "").partition(".")[2]
            for alias in node.names:
                yield alias.asname or alias.name, f"{package}.{alias.name}".lstrip(".")


def _called(node: ast.AST) -> tuple[str | None, str | None]:
    """Return the name that a call calls and the name of what it is called on, if it has one."""
    if not isinstance(node, ast.Call):
        return None, None
    if isinstance(node.func, ast.Name):
        return node.func.id, None
    if isinstance(node.func, ast.Attribute):
        owner = node.func.value
        if isinstance(owner, ast.Attribute):
            return node.func.attr, owner.attr
        return node.func.attr, owner.id if isinstance(owner, ast.Name) else ""
    return None, None


def _codes(functions: Iterable[Function]) -> dict[str, bool]:
    """Return the words that may be codes of refusals in these functions."""
    found: dict[str, bool] = dict.fromkeys(VERDICTS.values(), False)
    for one in functions:
        for node in ast.walk(one.node):
            name, _ = _called(node)
            if name in VERDICTS:
                found[VERDICTS[name]] = True
            if isinstance(node, ast.Call | ast.Tuple):
                for word in _words(node):
                    found[word] = True
    return found


def _words(node: ast.Call | ast.Tuple) -> Iterator[str]:
    """Yield the literal words in a call's arguments or in a tuple; a formatted one stands for all states."""
    given = node.args if isinstance(node, ast.Call) else node.elts
    for value in itertools.chain.from_iterable(_either(one) for one in given):
        if isinstance(value, ast.Constant) and isinstance(value.value, str) and CODE.fullmatch(value.value):
            yield value.value
        if isinstance(value, ast.JoinedStr) and isinstance(value.values[0], ast.Constant):
            prefix = str(value.values[0].value)
            if prefix.endswith("-"):
                yield from (f"{prefix}{state}" for state in ("active", "frozen", "retired"))


def _either(value: ast.expr) -> tuple[ast.expr, ...]:
    return (value.body, value.orelse) if isinstance(value, ast.IfExp) else (value,)


def _verdicts(text: str) -> Iterator[str]:
    for name in re.findall(r":class:`(\w+)`", text):
        if name in VERDICTS:
            yield VERDICTS[name]


def _references(text: str) -> list[str]:
    return [name.lstrip("~").removeprefix("firstlight.") for name in re.findall(r":(?:func|meth):`([^`]+)`", text)]


def _raised(function: Function) -> set[str]:
    """Return the codes that a function itself refuses with."""
    found: set[str] = set()
    inner = {id(one) for child in ast.walk(function.node) if child is not function.node
             and isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) for one in ast.walk(child)}  # fmt: skip
    for node in ast.walk(function.node):
        if id(node) in inner or not isinstance(node, ast.Raise | ast.Call):
            continue
        call = node.exc if isinstance(node, ast.Raise) else node
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in {*_REFUSING, "require"}:
            found.update(_words(call))
    return found
