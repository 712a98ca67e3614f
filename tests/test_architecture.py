"""The pure half has no hidden inputs: no clock, chance or file reaches it except through an argument.

The import contract (``lint-imports``) keeps whole modules out; this looks at what is called.
"""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "firstlight"

PURE = (
    "errors",
    "encoding",
    "ports",
    "p256",
    "cose",
    "trees",
    "chain",
    "ledger",
    "identity",
    "plan",
    "sealing",
    "attestation",
    "enrolment",
    "sim",
    "discovery",
    "onboarding",
)
HIDDEN = {
    "open": "a file",
    "now": "a clock",
    "utcnow": "a clock",
    "today": "a clock",
    "perf_counter": "a clock",
    "monotonic": "a clock",
    "urandom": "chance",
    "getrandom": "chance",
    "token_bytes": "chance",
    "generate": "chance",
    "generate_key": "chance",
    "generate_private_key": "chance",
    "generate_parameters": "chance",
    "random_serial_number": "chance",
    "__import__": "any module",
    "import_module": "any module",
    "eval": "anything",
    "exec": "anything",
}
# Chance inside a primitive of `cryptography` whose output nobody has to repeat.
ALLOWED = {
    ("sealing/hpke.py", "ec.generate_private_key"): "the ephemeral key of an encapsulation (RFC 9180 §4.1)",
}


def files(*rooms: str) -> Iterator[Path]:
    for room in rooms:
        path = SOURCE / room
        yield from path.rglob("*.py") if path.is_dir() else [path.with_suffix(".py")]


def hidden_calls(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and dotted name of every call of something hidden."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        dotted = ast.unparse(function)
        name = dotted.rpartition(".")[2]
        if name in HIDDEN and (name != "open" or dotted in {"open", "io.open"}):
            yield node.lineno, dotted


def test_the_pure_half_has_no_hidden_inputs() -> None:
    found = [
        f"{path.relative_to(SOURCE)}:{line} calls {name}: {HIDDEN[name.rpartition('.')[2]]}"
        for path in files(*PURE)
        for line, name in hidden_calls(path.read_text())
        if (str(path.relative_to(SOURCE)), name) not in ALLOWED
    ]
    assert found == []


def test_no_allowance_is_left_over() -> None:
    used = {
        (str(path.relative_to(SOURCE)), name) for path in files(*PURE) for _, name in hidden_calls(path.read_text())
    }
    assert set(ALLOWED) <= used


@pytest.mark.parametrize(
    "source",
    ["open('x')", "datetime.datetime.now(UTC)", "os.urandom(4)", "X25519PrivateKey.generate()", "__import__('os')"],
)
def test_the_search_finds_what_it_looks_for(source: str) -> None:
    assert len(list(hidden_calls(source))) == 1


def test_the_import_contract_speaks_of_the_same_rooms() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    by_id = {one["id"]: one for one in contracts}
    assert by_id["pure"]["source_modules"] == [f"firstlight.{room}" for room in PURE]
    rooms = {path.stem for path in SOURCE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert {f"firstlight.{room}" for room in rooms - {"__init__", "__main__", "testing"}} == set(
        by_id["testing"]["source_modules"]
    )


def test_every_file_states_what_it_is_for() -> None:
    bare = [str(path) for path in SOURCE.rglob("*.py") if ast.get_docstring(ast.parse(path.read_text())) is None]
    assert bare == []
