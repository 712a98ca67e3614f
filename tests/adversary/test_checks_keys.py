"""What an operator's own keys' keeper, or a copied card, says where only one check of the operator looks at it.

The operator asks a home location register for vectors, and hostapd asks the operator. Whoever sits at the register's
port, or has copied a card, answers; beside each attempt stands what an honest one says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.refusals import refused
from tests.unit.access.test_aka_socket import IMSI, judge, talking, used
from tests.unit.access.test_gsup import ONE, element, result, vector

from firstlight.access.serving.gsup import MAX_VECTORS, Vectors, pack_imsi, parse
from firstlight.errors import FirstlightError
from firstlight.sim.aka import Accepted, Sequence

WHO = element(1, pack_imsi(IMSI))
GOOD = element(3, vector())
MESSAGES: Mapping[str, tuple[str, bytes]] = {
    "cut-short": ("gsup-truncated", ONE[:-1]),
    "for-two-subscribers": ("gsup-twice", result(WHO, element(1, pack_imsi("001010000000002")), GOOD)),
    "for-nobody": ("gsup-missing", result(GOOD)),
    "for-what-is-no-subscriber": ("gsup-imsi", result(element(1, bytes.fromhex("00f1010000000001")), GOOD)),
    "without-a-cause": ("gsup-missing", result(WHO, kind=9)),
    "without-a-vector": ("gsup-missing", result(WHO)),
    "with-vectors-without-end": ("gsup-too-many", result(WHO, *[GOOD] * (MAX_VECTORS + 1))),
    "with-a-vector-that-lacks-autn": ("gsup-missing", result(WHO, element(3, vector(autn=None)))),
    "with-a-key-of-another-length": ("gsup-length", result(WHO, element(3, vector(ck=bytes(15))))),
}


@pytest.mark.parametrize("name", sorted(MESSAGES))
def test_an_operator_takes_no_such_answer_of_a_register(name: str) -> None:
    """Whoever answers in the register's place hands out what is not whole, or what is for somebody else."""
    code, content = MESSAGES[name]
    assert isinstance(parse(result(WHO, GOOD)), Vectors)
    assert refused(lambda: parse(content)) == code


def test_nobody_has_proven_himself_with_what_nobody_was_given_or_what_is_used_up(tmp_path: Path) -> None:
    """A device is let in that was asked nothing, or a copy of a card that has fallen behind the other one."""

    async def said() -> list[str]:
        async with talking(tmp_path) as talk:
            codes = []

            async def proven() -> None:
                try:
                    await talk.centre.proven(IMSI, IMSI)
                except FirstlightError as error:
                    codes.append(error.code)
                except Exception as error:  # noqa: BLE001 - what breaks is told from what is refused
                    codes.append(repr(error))
                else:
                    codes.append("taken")

            await proven()
            stolen = await used(talk, Sequence.fresh())
            await used(talk, stolen)
            assert isinstance(judge(await talk.ask(), stolen), Accepted)
            await proven()
            return codes

    assert asyncio.run(said()) == ["unknown-subscriber", "subscription-copied"]
