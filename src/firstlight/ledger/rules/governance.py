"""Governance: the next epoch, the next root, and the height from which an epoch counts."""

from __future__ import annotations

from dataclasses import replace

from firstlight.chain.root import EpochStatement, known_epoch, open_epoch, open_root
from firstlight.encoding import encode
from firstlight.errors import SignatureError
from firstlight.ledger.draft import Draft, Outcome, require
from firstlight.ledger.records import GOVERNANCE, epoch_name, root_name
from firstlight.ledger.state import State
from firstlight.ledger.transaction import RotateRoot, SetEpoch

EPOCH_AHEAD = 2
"""An epoch begins at least so many blocks after the one that sets it."""


def set_epoch(draft: Draft, body: SetEpoch) -> Outcome:
    """Put the next epoch statement on the ledger.

    1. The statement carries m root signatures (``epoch-signature`` and what :func:`open_epoch` raises).
    2. m root keys signed the transaction (``not-endorsed``, ``unknown-key``, ``bad-signature``); the sequence is the
       epoch's number (``wrong-sequence``), which is the one after the last (``wrong-epoch``).
    3. It begins at least two blocks on (``epoch-too-soon``), and the one before it has begun (``epoch-pending``).
    """
    root = draft.root()
    statement = open_epoch(body.statement, root)
    draft.signed_by_root(root.threshold)
    draft.sequence(statement.number)
    governance = draft.before.governance()
    last = governance.next_epoch or governance.epoch
    require(statement.number == last + 1, "wrong-epoch", f"epoch {last} is the last")
    require(governance.next_epoch == 0, "epoch-pending", f"epoch {governance.next_epoch} has not begun")
    require(statement.first_height >= draft.height + EPOCH_AHEAD, "epoch-too-soon", f"height {draft.height} now")
    draft.put_value(epoch_name(statement.number), encode(body.statement))
    draft.put(GOVERNANCE, replace(governance, next_epoch=statement.number, next_epoch_hash=statement.hash()))
    return Outcome()


def rotate_root(draft: Draft, body: RotateRoot) -> Outcome:
    """Put the next root statement in force.

    1. The statement carries the signatures of m of the root in force and of m of its own (``root-signature`` and what
       :func:`open_root` raises); it is of this chain (``wrong-chain``) and the next version (``wrong-root-version``).
    2. m of its keys signed the transaction (``not-endorsed``, ``unknown-key``, ``bad-signature``); the sequence is its
       version (``wrong-sequence``).
    3. No epoch is pending (``epoch-pending``), and the one in force comes with it, signed by the new root
       (``epoch-signature``, ``wrong-epoch``), so that whoever knows the new root alone can check it.
    """
    root = draft.root()
    statement = open_root(body.statement, signed_by=[root])
    require(statement.chain == draft.chain, "wrong-chain", f"a root of {statement.chain}")
    require(statement.version == root.version + 1, "wrong-root-version", f"version {root.version} is in force")
    signed = draft.transaction.signed
    if len(signed.signatures) < statement.threshold:
        raise SignatureError("not-endorsed", f"fewer than {statement.threshold} of the new root's keys have signed")
    draft.signed_by_any(statement.keys)
    draft.sequence(statement.version)
    governance = draft.before.governance()
    require(governance.next_epoch == 0, "epoch-pending", f"epoch {governance.next_epoch} has not begun")
    epoch = open_epoch(body.epoch, statement)
    require(epoch.hash() == governance.epoch_hash, "wrong-epoch", f"epoch {governance.epoch} is in force")
    draft.put_value(epoch_name(epoch.number), encode(body.epoch))
    draft.put_value(root_name(statement.version), encode(body.statement))
    draft.put(GOVERNANCE, replace(governance, root_version=statement.version, root_hash=statement.hash()))
    return Outcome()


def begin_block(state: State, height: int) -> State:
    """Return the state in which the block at ``height`` runs: an epoch that begins there is the current one."""
    governance = state.governance()
    if governance.next_epoch == 0:
        return state
    statement = state.statement(epoch_name(governance.next_epoch))
    epoch: EpochStatement | None = None if statement is None else known_epoch(statement)
    if epoch is None or epoch.first_height > height:
        return state
    current = replace(governance, epoch=epoch.number, epoch_hash=epoch.hash(), next_epoch=0, next_epoch_hash=None)
    return state.changed({GOVERNANCE: current.encode()}, {})
