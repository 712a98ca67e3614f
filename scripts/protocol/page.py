"""The generated parts of ``docs/protocol.md``: between ``<!-- made: … -->`` and ``<!-- /made -->``."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from scripts.protocol import rules, vectors
from scripts.protocol.cddl import comment

from firstlight.attestation import appraisal, evidence, reference
from firstlight.chain import root, witness
from firstlight.discovery import machine, verify
from firstlight.ledger import transaction
from firstlight.ledger.transaction import BODIES
from firstlight.onboarding import messages, party
from firstlight.plan import order
from firstlight.sealing import deposit, inquiry, receipt

_PART = re.compile(r"(<!-- made: (.+?) -->\n).*?(<!-- /made -->)", re.DOTALL)
_HEX = 96

TYPES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        transaction.TYP: ("transaction", "whoever has the right"),
        root.ROOT_TYPE: ("root statement (COSE_Sign)", "m keys of the version before and of its own"),
        root.EPOCH_TYPE: ("epoch statement (COSE_Sign)", "m root keys"),
        witness.TYPE: ("witness statement", "a witness of the epoch"),
        order.TYP: ("order", "the tenure's key"),
        inquiry.QUESTION: ("question", "the tenure's key"),
        inquiry.CLEARANCE: ("clearance", "the tenure's key"),
        deposit.TYP: ("deposit", "the tenure's key"),
        receipt.TYP: ("receipt", "the device's attestation key"),
        evidence.TYP: ("evidence", "the device's attestation key"),
        reference.TYP: ("reference values", "the issuer's party key"),
    }
)
REFUSED: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "exchange-used": ("another message 3 for this exchange has counted", "begin a new exchange"),
        "superseded": ("message 2 is older than that of the newest granted exchange", "begin a new exchange"),
        "view-too-old": ("the party's own view of the ledger is too old", "try again later"),
        "party-suspended": ("the party is suspended on the ledger", "try again later"),
        "not-accepted": ("no tenure counts for the device", "discover anew"),
        "frozen": ("the device is frozen", "discover anew, later"),
        "retired": ("the device is retired", "discover anew, later"),
        "not-deployed": ("its tenure has no plan", "discover anew, later"),
        "stale-view": ("tenure, plan revision or party revision differ at the party's head", "discover anew"),
        "bad-plan-opening": ("the plan claim does not open in the tenure's plan root", "discover anew"),
        "wrong-party": ("the claim names another party", "discover anew"),
        "wrong-kind": ("the party does not serve as what the claim says", "discover anew, later"),
        "order-unknown": ("the party holds no order of that number", "its owner must act"),
        "order-foreign": ("the order is for another chain, party, batch or owner", "its owner must act"),
        "order-expired": ("the order has run out", "its owner must act"),
        "order-full": ("all of the order's slots are taken", "its owner must act"),
        "clone-alarm": ("somebody else has been granted in the device's name", "its owner must act"),
    }
)


def fill(page: str) -> str:
    """Return ``page`` with all its generated parts made anew."""
    return _PART.sub(lambda match: f"{match[1]}{make(match[2])}\n{match[3]}", page)


def make(what: str) -> str:
    """Return one generated part by its name, such as ``cddl trees``."""
    kind, _, name = what.partition(" ")
    return _MAKERS[kind](name)


def _cddl(name: str) -> str:
    return f"```cddl\n{rules.RULES.section(name)}\n```"


def _example(name: str) -> str:
    one = vectors.find(name)
    size = f"{len(one.data)} bytes" if one.data else ""
    title = f"**Example** `{name}`: {one.about}" + (f" ({size})." if size else ".")
    parts = [title]
    if one.data:
        parts.append(f"```text\n{_rows(one.data)}\n```")
    if one.notation:
        parts.append(f"```cbor-diag\n{one.notation}\n```")
    return "\n\n".join(parts)


def _values(name: str) -> str:
    """Return an example that is a table of values."""
    one = vectors.find(name)
    rows = [f"**Example** `{name}`: {one.about}.", "", "```text"]
    for key, value in one.given.items():
        rows += _value(key, vectors.plain(value))
    return "\n".join([*rows, "```"])


def _value(key: str, value: object) -> list[str]:
    if isinstance(value, list):
        return [line for number, one in enumerate(value) for line in _value(f"{key} {number}", one)]
    text = str(value)
    if len(text) <= _HEX:
        return [f"{key}: {text}"]
    return [f"{key}:", *(f"  {row}" for row in textwrap.wrap(text, _HEX))]


def _rows(data: bytes) -> str:
    text = data.hex()
    return "\n".join(text[at : at + _HEX] for at in range(0, len(text), _HEX))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _types(_: str) -> str:
    rows = [[f"`{typ}`", what, who] for typ, (what, who) in TYPES.items()]
    return _table(["typ", "of", "signed by"], rows)


def _kinds(_: str) -> str:
    rows = []
    for kind, body in BODIES.items():
        said = " ".join(line.removeprefix("; ") for line in comment(body))
        rows.append([str(int(kind)), f"`{kind.label}`", "COSE_Sign" if body.MANY else "COSE_Sign1", said])
    return _table(["kind", "name", "form", "what it does, and who signs"], rows)


def _checks(_: str) -> str:
    said = numbered(verify.verify_bundle.__doc__ or "")
    rows = []
    for number, (name, codes) in enumerate(verify.CHECKS.items(), 1):
        text = said[number].removeprefix(f"{name}: ").rstrip(";.")
        rows.append([str(number), f"**{name}**", text, ", ".join(f"`{code}`" for code in codes)])
    return _table(["", "check", "what must hold", "codes"], rows)


def numbered(docstring: str) -> dict[int, str]:
    """Return the numbered checks of a docstring, each as one line."""
    paragraphs = [" ".join(one.split()) for one in docstring.split("\n\n")]
    text = " ".join(one for one in paragraphs if re.match(r"\d+\. ", one))
    parts = re.split(r"(?:^|[,;.]? )(?=\d+\. )", text)
    pairs = (part.split(". ", 1) for part in parts if part)
    return {int(number): plain_text(said).rstrip(",;") for number, said in pairs}


def plain_text(text: str) -> str:
    """Return docstring text as Markdown has it."""
    text = re.sub(r":[a-z]+:`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", text)
    return text.replace("``", "`")


def _party_checks(_: str) -> str:
    """Return the list of a party's checks as its module has it."""
    text = textwrap.dedent(party.__doc__ or "")
    block = text[text.index("     1. ") : text.index("Every exchange counts once")]
    said = re.sub(r"; :[a-z]+:`.*(?=\))| \(:[a-z]+:`[^)]*\)", "", textwrap.dedent(block).rstrip())
    return f"```text\n{said.replace('``is_clone``', 'see 7.4').replace('``', '')}\n```"


def _refusals(_: str) -> str:
    rows = [[f"`{code}`", str(party.REFUSALS[code]), *REFUSED[code]] for code in party.REFUSALS]
    rows += [[f"`{code}`", "13", f"a finding of the appraisal ({aspect.name.lower()})", "its software must change"]
             for code, aspect in appraisal.ASPECTS.items()]  # fmt: skip
    return _table(["code", "check", "meaning", "what helps"], rows)


def _appraisal(_: str) -> str:
    said = numbered(appraisal.appraise.__doc__ or "")
    return "\n".join(f"{number}. {text}" for number, text in said.items())


def _diagram(_: str) -> str:
    """Return the device's discovery as a state diagram, made from its table of transitions."""
    lines = ["```mermaid", "stateDiagram-v2", "    direction LR", f"    [*] --> {machine.State.NEW.value}"]
    for state, following in machine.TRANSITIONS.items():
        targets = sorted(following, key=lambda one: list(machine.State).index(one))
        lines += [f"    {state.value} --> {one.value}" for one in targets]
        if not following:
            lines.append(f"    {state.value} --> [*]")
    return "\n".join([*lines, "```"])


def _eads(_: str) -> str:
    rows = [
        [str(messages.EAD_HEIGHT), "EAD_2", "no", "`ead-head`: height of the party's verified head"],
        [str(messages.EAD_CLAIM), "EAD_3", "yes", "`claim`"],
        [str(messages.EAD_EVIDENCE), "EAD_3", "yes", "`signed-evidence`"],
        [str(messages.EAD_REQUEST), "EAD_3", "yes", "PKCS #10 request in DER; absent for a SIM"],
        [str(messages.EAD_GRANT), "EAD_4", "yes", "`grant`"],
        [str(messages.EAD_REFUSAL), "EAD_4", "yes", "`ead-refusal`"],
    ]
    return _table(["label", "in", "critical", "value: a byte string that holds"], rows)


def _files(_: str) -> str:
    rows = []
    for name in vectors.files():
        stem = name.removesuffix(".json")
        names = [one.name for one in vectors.all_vectors() if one.file == stem]
        shown = ", ".join(names[:12]) + (", …" if len(names) > 12 else "")
        rows.append([f"[`{name}`](vectors/{name})", shown])
    return _table(["file", "examples"], rows)


_MAKERS: Mapping[str, Callable[[str], str]] = {
    "cddl": _cddl,
    "example": _example,
    "values": _values,
    "types": _types,
    "kinds": _kinds,
    "checks": _checks,
    "party-checks": _party_checks,
    "refusals": _refusals,
    "appraisal": _appraisal,
    "diagram": _diagram,
    "eads": _eads,
    "files": _files,
}
