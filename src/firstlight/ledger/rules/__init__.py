"""The rules of the ledger: one function for each kind of transaction, one file for each family of them.

:func:`apply` is the state machine. It is pure: what a transaction does follows from the state, its bytes, the
height and the time of the header alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeVar

from firstlight.errors import MalformedError, ProofError, RuleError, SignatureError
from firstlight.ledger.draft import Draft, Outcome, Result
from firstlight.ledger.rules import batches, conditions, governance, parties, plans, references, transfers
from firstlight.ledger.rules.governance import begin_block
from firstlight.ledger.state import State
from firstlight.ledger.transaction import (
    Accept,
    AddBudget,
    AnchorBatch,
    Body,
    Deploy,
    Freeze,
    Kind,
    Offer,
    PublishReference,
    Recover,
    RegisterParty,
    Retire,
    RevokeReference,
    RotateRoot,
    SetEpoch,
    SuspendParty,
    Transaction,
    Unfreeze,
    UpdateParty,
    Withdraw,
    parse,
)

__all__ = ["Result", "apply", "apply_parsed", "begin_block"]

_B = TypeVar("_B", bound=Body)
_Rule = Callable[[Draft, Body], Outcome]
_REFUSALS = (MalformedError, SignatureError, ProofError, RuleError)


def _rule(kind: type[_B], rule: Callable[[Draft, _B], Outcome]) -> tuple[Kind, _Rule]:
    def run(draft: Draft, body: Body) -> Outcome:
        if not isinstance(body, kind):
            raise MalformedError("unknown-kind", f"{type(body).__name__} is no {kind.__name__}")
        return rule(draft, body)

    return kind.KIND, run


RULES: Mapping[Kind, _Rule] = MappingProxyType(
    dict(
        (
            _rule(RegisterParty, parties.register_party),
            _rule(UpdateParty, parties.update_party),
            _rule(SuspendParty, parties.suspend_party),
            _rule(AnchorBatch, batches.anchor_batch),
            _rule(AddBudget, batches.add_budget),
            _rule(Offer, transfers.offer),
            _rule(Accept, transfers.accept),
            _rule(Withdraw, transfers.withdraw),
            _rule(Deploy, plans.deploy),
            _rule(Freeze, conditions.freeze),
            _rule(Unfreeze, conditions.unfreeze),
            _rule(Retire, conditions.retire),
            _rule(Recover, transfers.recover),
            _rule(PublishReference, references.publish_reference),
            _rule(RevokeReference, references.revoke_reference),
            _rule(SetEpoch, governance.set_epoch),
            _rule(RotateRoot, governance.rotate_root),
        )
    )
)


def apply(state: State, data: bytes, height: int, time: int) -> tuple[State, Result]:
    """Return the state after the transaction ``data`` in the block at ``height`` with header time ``time`` (s).

    A transaction that is malformed or that a rule refuses changes nothing, and the result carries its code; nothing
    is raised for it. :class:`firstlight.errors.StoreError` is raised if this node's own store fails.
    """
    try:
        transaction = parse(data)
    except _REFUSALS as error:
        return state, Result(None, error, {})
    return apply_parsed(state, transaction, height, time)


def apply_parsed(state: State, transaction: Transaction, height: int, time: int) -> tuple[State, Result]:
    """Do as :func:`apply` does with a transaction that is parsed already.

    1. It is of this chain (``wrong-chain``). Then comes the rule of its kind, whose checks stand there.
    """
    draft = Draft(state, transaction, height=height, time=time)
    try:
        if transaction.chain != state.chain:
            raise RuleError("wrong-chain", f"a transaction of {transaction.chain}")
        outcome = RULES[transaction.kind](draft, transaction.body)
    except _REFUSALS as error:
        return state, Result(None, error, {})
    return draft.result(), Result(outcome, None, draft.values)
