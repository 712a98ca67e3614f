"""No signature serves twice: whatever opens one type of signed object takes no other, however right the rest is."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from firstlight import cose
from firstlight.attestation import evidence, reference
from firstlight.chain import root, witness
from firstlight.encoding import encode
from firstlight.errors import FirstlightError, MalformedError
from firstlight.ledger import transaction
from firstlight.plan import order
from firstlight.sealing import deposit, hpke, inquiry, receipt
from firstlight.sealing.padding import pad
from firstlight.sealing.receipt import Expected, open_receipt
from firstlight.testing.chains import P256Key

ROOT = Path(__file__).parents[2]
CHAIN, PARTY, BATCH, LOCATOR = "test-1", bytes(16), bytes(16), bytes(16)
KEY, READER = P256Key("signs everything"), P256Key("reads everything")


def _root(data: bytes) -> object:
    return root.open_root(data)


def _epoch(data: bytes) -> object:
    return root.open_epoch(data, root.known_root(vector("governance", "root")))


def _order(data: bytes) -> object:
    return order.open_order(data, key=KEY.public, chain=CHAIN, party=PARTY, now=1)


def _receipt(data: bytes) -> object:
    info = encode(["firstlight-receipt-1", CHAIN, LOCATOR])
    sealed = hpke.seal(READER.public, pad(data, receipt.PLAIN_SIZE), info=info)
    return open_receipt(sealed, READER, Expected(CHAIN, LOCATOR, BATCH, 0, KEY.public, {1}))


def _inquiry(typ: str) -> Callable[[bytes], object]:
    def opened(data: bytes) -> object:
        sealed = inquiry.seal_inquiry(data, chain=CHAIN, party=PARTY, agreement=READER.public)
        return inquiry.unseal_inquiry(sealed, READER, typ=typ, chain=CHAIN, party=PARTY)

    return opened


OPENERS: Mapping[str, tuple[Callable[[bytes], object], ...]] = MappingProxyType(
    {
        transaction.TYP: (transaction.parse,),
        root.ROOT_TYPE: (_root, root.known_root),
        root.EPOCH_TYPE: (_epoch, root.known_epoch),
        order.TYP: (_order, order.parse_order),
        deposit.TYP: (deposit.parse_deposit,),
        inquiry.QUESTION: (_inquiry(inquiry.QUESTION),),
        inquiry.CLEARANCE: (_inquiry(inquiry.CLEARANCE),),
        receipt.TYP: (_receipt,),
        evidence.TYP: (evidence.parse_evidence,),
        reference.TYP: (reference.parse_reference,),
    }
)
"""What opens each type of signed object."""
TYPES = (*OPENERS, witness.TYPE)
"""All types. Of a witness's statement the signature travels alone; who checks it makes the rest himself."""


def vector(file: str, name: str) -> bytes:
    """Return a published example."""
    found = json.loads((ROOT / "docs" / "vectors" / f"{file}.json").read_text())
    (one,) = (one for one in found["vectors"] if one["name"] == name)
    return bytes.fromhex(one["bytes"])


def code_of(work: Callable[[bytes], object], data: bytes) -> str:
    try:
        work(data)
    except FirstlightError as error:
        return error.code
    return ""


@pytest.mark.parametrize("typ", OPENERS)
def test_an_opener_takes_its_own_type_alone(typ: str) -> None:
    for opener in OPENERS[typ]:
        payload = encode(["whatever", 1])
        assert code_of(opener, cose.sign1(payload, typ=typ, signer=KEY)) != "wrong-type"
        for other in TYPES:
            if other == typ:
                continue
            for signed in (
                cose.sign1(payload, typ=other, signer=KEY),
                cose.sign(payload, typ=other, signers=[KEY]),
            ):
                with pytest.raises(MalformedError) as refused:
                    opener(signed)
                assert refused.value.code == "wrong-type", (opener, other)


def test_these_are_all_types_there_are() -> None:
    source = "".join(path.read_text() for path in (ROOT / "src" / "firstlight").rglob("*.py"))
    named = set(re.findall(r'"(application/(?:firstlight-[a-z]+\+cbor|eat\+cwt|rim\+cbor))"', source))
    assert named == set(TYPES)
    parsed = len(re.findall(r"cose\.(?:parse|open1)\([^)]*typ=(?:TYP|[A-Z]+_TYPE)\b", source))
    assert parsed == 10, "an opener came: give it to OPENERS"


def test_a_witness_signs_a_statement_and_nothing_else() -> None:
    statement = witness.WitnessStatement(CHAIN, 1, bytes(32), 5, bytes(32))
    good = witness._to_be_signed(statement, KEY.public)
    assert witness.TYPE.encode() in good
    assert all(other.encode() not in good for other in OPENERS)
