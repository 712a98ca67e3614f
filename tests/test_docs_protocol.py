"""The protocol's page, rules and examples are what the code makes; ``python -m scripts.protocol`` writes them anew."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
from scripts.protocol import __main__ as script
from scripts.protocol import page, rules, vectors
from scripts.protocol.cddl import Rules, records
from scripts.protocol.diagnostic import diagnose

from firstlight import cose
from firstlight.discovery import machine
from firstlight.encoding import Bytes16, Count, Gapped, Packed, Range, Record, Size, Text, decode
from firstlight.errors import MalformedError
from firstlight.ledger.transaction import Kind
from firstlight.onboarding import party

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "protocol.md"
ANEW = "write it anew: python -m scripts.protocol"


@pytest.mark.parametrize("path", script.outputs(), ids=lambda path: path.name)
def test_what_is_generated_is_current(path: Path) -> None:
    assert path.read_text() == script.outputs()[path], ANEW


def test_no_file_of_vectors_is_left_over() -> None:
    assert {path.name for path in (ROOT / "docs" / "vectors").iterdir()} == set(vectors.files())


def test_every_record_that_travels_has_a_rule() -> None:
    missing = {
        one.__name__
        for module in rules.PAGE_MODULES
        for one in records(module)
        if one not in rules.RULES.classes and one.__name__ not in rules.STAYS
    }
    assert not missing, "give it a rule in scripts/protocol/rules.py, or say in STAYS why it stays"


def test_every_section_of_rules_is_on_the_page() -> None:
    made = set(re.findall(r"<!-- made: cddl (\S+) -->", PAGE.read_text()))
    assert made == set(rules.SECTIONS)


def test_there_is_an_example_of_every_kind_of_transaction() -> None:
    assert vectors.kinds_shown() == set(Kind)


# What is so plain that its rule says it all.
PLAIN = {
    *(
        "transaction-answer",
        "header-answer",
        "header",
        "block-id",
        "commit",
        "proofs-request",
        "proofs",
        "proven-state",
    ),
    *("receipt-query", "receipt-found", "receipt-page"),
    "one-time-name",
}
INSIDE = {
    *("head-proof", "partial-header", "votes", "commit-sig", "validator-set", "validator"),
    *("freshness", "nonce-proof", "witness-signature", "root-statement", "epoch-statement"),
    *("stranger", "order", "receipt", "deposit-list", "deposit-entry", "set-name", "revoked", "rotation"),
    *("question", "clearance", "device-line", "raised-alarm"),
    *("sim-grant", "x509-grant", "home-network"),
}
"""Records of which an example of something else holds one."""


def test_there_is_an_example_of_every_message() -> None:
    made = {rules.RULES.type(one) for one in rules.RULES.classes if issubclass(one, Record)}
    bodies = {name for name in made if name.endswith("-body")}
    assert made - bodies - vectors.rules_shown() == PLAIN | INSIDE


OWN_LABELS = {
    *("firstlight-software-1", "firstlight-slot-1", "firstlight-make-1", "firstlight-deployment-1"),
}
"""Labels of what somebody computes for himself alone."""


def sources() -> str:
    return "".join(path.read_text() for path in (ROOT / "src" / "firstlight").rglob("*.py"))


def test_every_label_in_the_code_is_on_the_page() -> None:
    used = set(re.findall(r'"(firstlight-[a-z-]+-1)"', sources())) - OWN_LABELS
    assert used <= set(re.findall(r"firstlight-[a-z-]+-1", PAGE.read_text()))


def test_every_refusal_is_explained() -> None:
    assert set(page.REFUSED) == set(party.REFUSALS)


def test_every_type_of_signed_object_is_in_the_table() -> None:
    assert set(re.findall(r'"(application/firstlight-[a-z]+\+cbor)"', sources())) <= set(page.TYPES)


def test_the_diagram_has_every_state_and_transition() -> None:
    drawn = page.make("diagram discovery")
    for state, following in machine.TRANSITIONS.items():
        for other in following:
            assert f"{state.value} --> {other.value}" in drawn


def test_links_of_the_page_lead_somewhere() -> None:
    text = PAGE.read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (ROOT / "docs" / target).exists(), target
    for file in re.findall(r"`vectors/([a-z-]+\.json)`", text):
        assert file in vectors.files(), file


# --- the examples are what they say -------------------------------------------------------------


def every_vector() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted((ROOT / "docs" / "vectors").glob("*.json")):
        for one in json.loads(path.read_text())["vectors"]:
            yield path.stem, one


def test_examples_are_canonical() -> None:
    checked = 0
    for file, one in every_vector():
        if "rule" in one:
            assert diagnose(bytes.fromhex(one["bytes"])), f"{file}/{one['name']}"
            checked += 1
    assert checked > 60


def test_the_encoding_vectors_are_judged_as_they_say() -> None:
    for file, one in every_vector():
        if file != "encoding":
            continue
        if one["verdict"] == "accepted":
            decode(bytes.fromhex(one["bytes"]))
        else:
            with pytest.raises(MalformedError) as refused:
                decode(bytes.fromhex(one["bytes"]))
            assert refused.value.code == one["verdict"]


def test_signatures_in_the_examples_verify() -> None:
    keys = {one["kid"]: one["public"] for file, one in every_vector() if file == "keys" and "kid" in one}
    known = {bytes.fromhex(kid): bytes.fromhex(public) for kid, public in keys.items()}
    signed = 0
    for file, one in every_vector():
        if str(one.get("rule", "")).startswith("signed-"):
            data = bytes.fromhex(one["bytes"])
            typ = re.search(r'typ / 16: "([^"]+)"', one["diagnostic"])
            assert typ, f"{file}/{one['name']}"
            cose.parse(data, typ=typ[1]).verify(known)
            signed += 1
    assert signed > 25


# --- the generator --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Inner(Record):
    """Something inside."""

    number: Annotated[int, Range(1, 9)]


@dataclass(frozen=True, slots=True)
class Outer(Record):
    """Something with :class:`Inner` in it; ``long_name`` is a name.

    Raises :class:`MalformedError` (``never``).
    """

    long_name: Annotated[str, Text(r"a\.b")]
    identifier: Bytes16
    some: Annotated[bytes, Size(1, 4)]
    flag: bool
    maybe: Inner | None
    many: Annotated[tuple[Inner, ...], Count(3, 1)]
    exactly: Annotated[tuple[Inner, ...], Count(2, 2)]
    pair: tuple[Inner, Bytes16]
    hashes: Annotated[tuple[bytes, ...], Packed(2, 1)]
    gapped: Annotated[tuple[bytes, ...], Gapped(9)]


def test_rules_follow_from_fields() -> None:
    made = Rules({"one": (Outer, Inner)}, {}).section("one")
    assert made.split("\n\n")[0] == "\n".join(
        (
            "; Something with inner in it; long-name is a name.",
            "outer = [",
            '  long-name: tstr .regexp "a\\\\.b",',
            "  identifier: bytes16,",
            "  some: bytes .size (1..4),",
            "  flag: bool,",
            "  maybe: inner / null,",
            "  many: [1*3 inner],",
            "  exactly: [2*2 inner],",
            "  pair: [inner, bytes16],",
            "  hashes: bytes .size (32..64), ; 1 to 2 times 32 bytes, one after the other",
            "  gapped: bytes .size (2..292), ; a gapped list of at most 9 times 32 bytes",
            "]",
        )
    )


def test_a_class_without_a_rule_is_refused() -> None:
    with pytest.raises(TypeError):
        Rules({"one": (Outer,)}, {}).section("one")


def test_two_classes_with_one_name_are_refused() -> None:
    with pytest.raises(ValueError, match="inner"):
        Rules({"one": (Outer, Inner)}, {Outer: "inner"})


def test_a_part_that_has_drifted_is_made_again() -> None:
    drifted = PAGE.read_text().replace("[*] --> new", "[*] --> old")
    assert drifted != PAGE.read_text()
    assert page.fill(drifted) == PAGE.read_text()
