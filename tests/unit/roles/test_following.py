"""Following a chain whose validators change: bisection, and what is refused on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace

import pytest

from firstlight.chain.commit import ValidatorSet
from firstlight.chain.light import SECOND, Policy
from firstlight.engines.port import Genesis
from firstlight.errors import ProofError
from firstlight.roles.following import begin, follow, trusted
from firstlight.roles.wire import HeaderAnswer
from firstlight.testing.chains import GENESIS, Consortium, Ed25519Key

POLICY = Policy(trusting_period=10**9 * SECOND)
NOW = (GENESIS + 1000) * SECOND
LAST = 9


def consortium_at(height: int) -> Consortium:
    """Return the consortium of a height: one of three validators is replaced with each block."""
    base = Consortium.of(validators=1)
    return replace(base, validators=tuple(Ed25519Key(f"validator {height + one}") for one in range(3)))


def chain() -> dict[int, HeaderAnswer]:
    found: dict[int, HeaderAnswer] = {}
    for height in range(1, LAST + 1):
        here, after = consortium_at(height), consortium_at(height + 1).validator_set
        block = here.block(bytes(32), height=height)
        closed = here.close(replace(block.header, next_validators_hash=after.hash()))
        found[height] = HeaderAnswer(closed.header, closed.commit, here.validator_set, after)
    return found


def genesis(validators: ValidatorSet, time: int) -> Genesis:
    here = consortium_at(1)
    return Genesis(here.chain, time, here.signed_root(), here.signed_epoch(), validators)


class Source:
    """Answers from a chain, and counts what it was asked."""

    def __init__(self, headers: Mapping[int, HeaderAnswer]) -> None:
        self.headers = headers
        self.asked: list[int] = []

    async def fetch(self, height: int) -> HeaderAnswer:
        self.asked.append(height)
        return self.headers[height]


def test_too_far_a_jump_is_made_in_steps() -> None:
    headers = chain()
    source = Source(headers)
    reached = asyncio.run(follow(trusted(headers[1]), headers[LAST], source.fetch, POLICY, NOW))
    assert reached.header == headers[LAST].header
    assert source.asked
    assert set(source.asked) < set(range(2, LAST))


def test_a_step_is_asked_for_only_where_needed() -> None:
    headers = chain()
    source = Source(headers)
    asyncio.run(follow(trusted(headers[1]), headers[2], source.fetch, POLICY, NOW))
    assert source.asked == []


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"app_hash": bytes([1]) * 32}, "commit-block"),
        ({"chain": "other-1"}, "wrong-chain"),
    ],
)
def test_a_changed_header_is_refused(change: dict[str, object], code: str) -> None:
    headers = chain()
    forged = replace(headers[2], header=replace(headers[2].header, **change))  # type: ignore[arg-type]
    with pytest.raises(ProofError) as caught:
        asyncio.run(follow(trusted(headers[1]), forged, Source(headers).fetch, POLICY, NOW))
    assert caught.value.code == code


def test_another_header_than_was_asked_for() -> None:
    headers = chain()
    lying = Source(dict.fromkeys(headers, headers[2]))
    with pytest.raises(ProofError, match="wrong-height"):
        asyncio.run(follow(trusted(headers[1]), headers[LAST], lying.fetch, POLICY, NOW))


def test_an_old_header_leads_nowhere() -> None:
    headers = chain()
    brief = Policy(trusting_period=10 * SECOND)
    with pytest.raises(ProofError, match="trusted-expired"):
        asyncio.run(follow(trusted(headers[1]), headers[2], Source(headers).fetch, brief, NOW))


def test_the_first_header_is_that_of_the_genesis() -> None:
    headers = chain()
    begun = genesis(headers[1].validators, headers[1].header.time)
    assert asyncio.run(begin(begun, Source(headers).fetch)).header == headers[1].header
    for other, code in (
        (replace(begun, time=begun.time + 1), "not-first-header"),
        (replace(begun, validators=headers[2].validators), "validators-hash"),
        (replace(begun, chain="other-1"), "wrong-chain"),
    ):
        with pytest.raises(ProofError) as caught:
            asyncio.run(begin(other, Source(headers).fetch))
        assert caught.value.code == code
    with pytest.raises(ProofError, match="next-validators"):
        trusted(replace(headers[1], next_validators=headers[3].validators))
