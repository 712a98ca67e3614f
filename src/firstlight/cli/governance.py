"""What members decide together: ``firstlight consortium suspend``, ``set-epoch``, ``rotate-root`` and so on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from firstlight.cli import output
from firstlight.custody.system import SystemRandom
from firstlight.files import write_atomic
from firstlight.ledger.records import PartyStatus
from firstlight.roles.ledger_client import MEMORY, LedgerClient
from firstlight.roles.workplace import identifier_of, plain_url

if TYPE_CHECKING:
    from firstlight.roles import governance

Directory = Annotated[Path, typer.Argument(metavar="DIR", help="State directory of the consortium, or of a member.")]
Node = Annotated[str, typer.Option("--node", metavar="URL", help="The ledger node to ask; it is not believed.")]
Members = Annotated[
    list[int] | None,
    typer.Option("--member", min=1, help="Who signs, by number; may be repeated. By default all here."),
]
Out = Annotated[
    Path | None, typer.Option("--out", metavar="FILE", help="Write the decision here for other members, do not submit.")
]
DecisionFile = Annotated[Path, typer.Argument(metavar="FILE", help="The decision, as another member wrote it.")]
KEY = 33
HASH = 32


def add_commands(app: typer.Typer) -> None:
    """Add the commands to the consortium's."""
    app.command()(suspend)
    app.command("set-epoch")(set_epoch)
    app.command("rotate-root")(rotate_root)
    app.command()(sign)
    app.command()(submit)
    app.command("add-budget")(add_budget)
    app.command("next-key")(next_key)


def suspend(
    directory: Directory,
    party: Annotated[str, typer.Argument(metavar="PARTY", help="The party's id, 32 hexadecimal digits.")],
    *,
    node: Node,
    lift: Annotated[bool, typer.Option("--lift", help="Let a suspended party count again instead.")] = False,
    member: Members = None,
    out: Out = None,
) -> None:
    """Suspend a party: devices do not go to it, and what it publishes does not count, until that is lifted.

    As many members as the root asks for must sign. With --out the decision is written for others to sign.
    """
    from firstlight.roles import governance

    status = PartyStatus.ACTIVE if lift else PartyStatus.SUSPENDED
    keys = governance.keys_of(directory, member or [])
    with _ledger(directory, node) as ledger:
        _finish(ledger, governance.suspend(ledger, identifier_of(party, "party id"), status, keys), directory, out)


def set_epoch(
    directory: Directory,
    *,
    node: Node,
    witness: Annotated[
        list[str] | None, typer.Option("--witness", metavar="KEY", help="A witness key, in hexadecimal; all of them.")
    ] = None,
    witness_threshold: Annotated[
        int | None, typer.Option("--witness-threshold", min=1, max=16, help="Witnesses that a device asks for.")
    ] = None,
    validators: Annotated[
        str | None, typer.Option("--validators", metavar="HASH", help="The validator set's hash, in hexadecimal.")
    ] = None,
    ahead: Annotated[int, typer.Option("--ahead", min=2, help="After how many blocks the epoch begins.")] = 4,
    member: Members = None,
    out: Out = None,
) -> None:
    """Set the next epoch: who validates and who witnesses. What is not named stays as it is."""
    from firstlight.roles import governance

    wanted = governance.NextEpoch(
        ahead,
        None if validators is None else identifier_of(validators, "hash", HASH),
        tuple(identifier_of(key, "public key", KEY) for key in witness) if witness else None,
        witness_threshold,
    )
    keys = governance.keys_of(directory, member or [])
    with _ledger(directory, node) as ledger:
        _finish(ledger, governance.set_epoch(ledger, wanted, keys), directory, out)


def rotate_root(
    directory: Directory,
    *,
    node: Node,
    key: Annotated[
        list[str] | None,
        typer.Option("--key", metavar="KEY", help="A key of the new root, in hexadecimal; all of them, repeated."),
    ] = None,
    threshold: Annotated[
        int | None, typer.Option("--threshold", min=1, max=16, help="How many of them must sign; else as before.")
    ] = None,
    member: Members = None,
    out: Out = None,
) -> None:
    """Replace the consortium's root keys; m of the old and m of the new ones sign, so that devices can follow.

    Without --key every member whose key lies in DIR gets a new one here. Where members keep their keys to themselves,
    each makes one with `consortium next-key` and tells its public half. The old keys are kept and stay dangerous: m of
    them fool a device that was born under their root. Guard them.
    """
    from firstlight.roles import governance

    if key:
        new = [identifier_of(one, "public key", KEY) for one in key]
    else:
        new = [governance.make_next_key(directory, one) for one in governance.members_of(directory)]
    with _ledger(directory, node) as ledger:
        keys = governance.keys_of(directory, member or [])
        _finish(ledger, governance.rotate_root(ledger, new, threshold, keys), directory, out)


def sign(
    directory: Directory,
    file: DecisionFile,
    *,
    member: Members = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Where to write it; by default where it was.")
    ] = None,
) -> None:
    """Sign a decision of the consortium with the keys in DIR, as far as it has got; no ledger is needed for that."""
    from firstlight.roles import governance, registration

    chain = registration.read_genesis(directory / registration.GENESIS).chain
    decision = governance.read_decision(file, chain).signed(governance.keys_of(directory, member or []))
    write_atomic(out or file, decision.encode(), 0o644)
    output.emit(
        {"file": out or file, "stated": decision.stated, "complete": decision.complete}, _words(decision.complete)
    )


def submit(directory: Directory, file: DecisionFile, *, node: Node) -> None:
    """Put a decision that enough members have signed on the ledger."""
    from firstlight.roles import governance

    with _ledger(directory, node) as ledger:
        _finish(ledger, governance.read_decision(file, ledger.chain), directory, None)


def add_budget(
    directory: Directory,
    batch: Annotated[str, typer.Argument(metavar="BATCH", help="The batch's id, 32 hexadecimal digits.")],
    *,
    amount: Annotated[int, typer.Option("--amount", min=1, help="How much work, in trie nodes.")],
    node: Node,
    member: Members = None,
) -> None:
    """Add to a batch's work budget, which its owners' transactions use up. One member's signature is enough."""
    from firstlight.roles import governance

    named = identifier_of(batch, "batch id")
    with _ledger(directory, node) as ledger:
        done = governance.add_budget(ledger, named, amount, governance.keys_of(directory, member or []))
        budget = ledger.batch(named).budget
    output.emit({"batch": named, "budget": budget, "transaction": done.id, "height": done.height})


def next_key(
    directory: Directory,
    *,
    member: Annotated[int, typer.Option("--member", min=1, help="Whose key.")],
) -> None:
    """Make the key that will replace a member's at the next `rotate-root`, and print its public half."""
    from firstlight.roles import governance

    output.emit({"member": member, "key": governance.make_next_key(directory, member)})


def _ledger(directory: Path, node: str) -> LedgerClient:
    from firstlight.roles.registration import GENESIS, read_genesis

    genesis = read_genesis(directory / GENESIS)
    return LedgerClient(plain_url(node), genesis, directory / MEMORY, random=SystemRandom())


def _finish(ledger: LedgerClient, decision: governance.Decision, directory: Path, out: Path | None) -> None:
    """Write a decision for other members, or submit it."""
    from firstlight.roles import governance

    if out is not None:
        write_atomic(out, decision.encode(), 0o644)
        output.emit({"file": out, "stated": decision.stated, "complete": decision.complete}, _words(decision.complete))
        return
    done = governance.submit(ledger, decision)
    moved = governance.settle(directory, ledger.view().root)
    answer: dict[str, object] = {"transaction": done.id, "height": done.height}
    output.emit(answer | ({"new_keys": moved} if moved else {}))


def _words(complete: bool) -> str:
    return "Enough have signed: submit it." if complete else "More members must sign."
