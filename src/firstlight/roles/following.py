"""Following a chain: from a header that was verified to the newest, by the light client's rules.

A thin driver: :func:`firstlight.chain.light.verify` judges, :func:`path` asks for what that needs (bisection, where too
few of the known validators signed to jump that far), the rest fetches it. The first header is verified against the
validators of the genesis.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator

from firstlight.chain.block import Header
from firstlight.chain.commit import verify_commit
from firstlight.chain.light import Invalid, NotEnoughTrust, Policy, SignedHeader, Success, Trusted, verify
from firstlight.chain.root import known_root, open_epoch, walk
from firstlight.discovery.bundle import StateProof
from firstlight.engines.port import Genesis
from firstlight.errors import ProofError
from firstlight.ledger.records import GOVERNANCE, Governance, tree_key
from firstlight.roles.wire import HeaderAnswer, Proofs
from firstlight.trees import sparse

MAX_STEPS = 64
Fetch = Callable[[int], Awaitable[HeaderAnswer]]
"""Fetches what somebody says is the header of a height."""


async def begin(genesis: Genesis, fetch: Fetch) -> Trusted:
    """Return the first header, verified against the genesis.

    1. It is of height 1 and of the genesis' time (``not-first-header``); 2. the validators of the genesis, and no
    others, committed it (:func:`firstlight.chain.commit.verify_commit`); 3. as :func:`trusted`.
    """
    first = await fetch(1)
    if first.header.height != 1 or first.header.time != genesis.time:
        raise ProofError("not-first-header", "not the header that the chain begins with")
    verify_commit(genesis.chain, genesis.validators, first.header, first.commit)
    return trusted(first)


def path(known: Trusted, target: HeaderAnswer, policy: Policy, now: int) -> Generator[int, HeaderAnswer, Trusted]:
    """Return ``target`` once it is verified from ``known`` at ``now`` (Unix ns), over headers in between if need be.

    Yields the heights of those and is sent what somebody says they are.

    1. Each step from what is known holds (:func:`firstlight.chain.light.verify`, the code of its verdict), with
    validators that the header names for the next height (:func:`trusted`); 2. there are not too many steps
    (``too-many-steps``), 3. and each is to the height that was asked for (``wrong-height``). Raises
    :class:`ProofError`.
    """
    wanted = [target]
    for _ in range(MAX_STEPS):
        following = wanted[-1]
        verdict = verify(known, signed(following), policy, now)
        if isinstance(verdict, Success):
            known = trusted(following)
            wanted.pop()
            if not wanted:
                return known
        elif isinstance(verdict, NotEnoughTrust):
            height = (known.header.height + following.header.height) // 2
            wanted.append(_of(height, (yield height)))
        elif isinstance(verdict, Invalid):
            raise ProofError(verdict.code, verdict.detail)
    raise ProofError("too-many-steps", f"more than {MAX_STEPS} headers in between")


async def follow(known: Trusted, target: HeaderAnswer, fetch: Fetch, policy: Policy, now: int) -> Trusted:
    """Walk a :func:`path`, fetching what it asks for; raises what it raises, and what ``fetch`` does."""
    walker = path(known, target, policy, now)
    try:
        height = next(walker)
        while True:
            height = walker.send(await fetch(height))
    except StopIteration as arrived:
        return _arrived(arrived)


def follow_now(
    known: Trusted, target: HeaderAnswer, fetch: Callable[[int], HeaderAnswer], policy: Policy, now: int
) -> Trusted:
    """As :func:`follow`, for those who fetch by waiting."""
    walker = path(known, target, policy, now)
    try:
        height = next(walker)
        while True:
            height = walker.send(fetch(height))
    except StopIteration as arrived:
        return _arrived(arrived)


def _arrived(end: StopIteration) -> Trusted:
    reached = end.value
    assert isinstance(reached, Trusted)
    return reached


def _of(height: int, found: HeaderAnswer) -> HeaderAnswer:
    if found.header.height != height:
        raise ProofError("wrong-height", f"height {found.header.height}, asked for {height}")
    return found


def signed(answer: HeaderAnswer) -> SignedHeader:
    """Return the header as the light client takes it."""
    return SignedHeader(answer.header, answer.commit, answer.validators)


def trusted(answer: HeaderAnswer) -> Trusted:
    """Return a verified header with its next validators; ``next-validators`` if it names others."""
    if answer.header.next_validators_hash != answer.next_validators.hash():
        raise ProofError("next-validators", "not the validators that the header names for the next height")
    return Trusted(answer.header, answer.next_validators)


def governed(root: bytes, header: Header, proofs: Proofs) -> tuple[bytes, bytes] | None:
    """Return the root and epoch statements in force under a verified ``header``, from the known ``root`` statement.

    ``proofs`` answers one request for no records, for somebody who knows ``root``. Nothing if it is of another head.

    1. Newer roots follow from the known one (codes of :func:`firstlight.chain.root.walk`); 2. the newest signed the
    epoch (:func:`open_epoch`, ``epoch-missing``); 3. the governance record is what the header's state says
    (``bad-state-proof``, ``wrong-values``) and names this root and epoch (``governance-root``, ``governance-epoch``).
    """
    head = proofs.head
    if (head.header.height, head.header.app_hash) != (header.height, header.app_hash):
        return None
    current = walk(known_root(root), head.roots)
    if head.epoch is None:
        raise ProofError("epoch-missing", "the node sends no epoch")
    epoch = open_epoch(head.epoch, current)
    record = _governance(proofs, header)
    if (record.root_version, record.root_hash) != (current.version, current.hash()):
        raise ProofError("governance-root", f"the ledger names root version {record.root_version}")
    named = ((record.epoch, record.epoch_hash), (record.next_epoch, record.next_epoch_hash))
    if (epoch.number, epoch.hash()) not in named:
        raise ProofError("governance-epoch", f"the ledger names epoch {record.epoch}, not this {epoch.number}")
    return head.roots[-1] if head.roots else root, head.epoch


def _governance(proofs: Proofs, header: Header) -> Governance:
    given = proofs.states[0].proof if len(proofs.states) == 1 else None
    if given is None:
        raise ProofError("wrong-values", "not one proof")
    state = StateProof.decode(given)
    if len(state.values) != 1 or state.values[0] is None:
        raise ProofError("wrong-values", "not the governance record alone")
    sparse.verify(header.app_hash, {tree_key(GOVERNANCE): state.values[0]}, state.proof)
    return Governance.decode(state.values[0])
