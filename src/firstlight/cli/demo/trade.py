"""From the factory to the owner's plan: made, anchored, sold through a distributor, ordered for, deployed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from firstlight.cli.demo.commands import run
from firstlight.cli.demo.world import Addresses, Places

Say = Callable[[str], None]
MODEL = "fl-1"


@dataclass(frozen=True, slots=True)
class Holding:
    """What the owner holds in the end."""

    batch: str
    tenure: int


def manufacture(places: Places, addresses: Addresses, count: int, say: Say) -> str:
    """Make and anchor ``count`` devices, publish their reference values; return the batch."""
    say(f"the manufacturer makes {count} devices and anchors them in one transaction")
    at = places.manufacturer
    made = run(
        "manufacturer", "make", at,
        "--count", count, "--model", MODEL, "--out", places.devices, "--gateway", addresses.hint,
    )  # fmt: skip
    batch = made.text("batch")
    run("manufacturer", "anchor", at, "--batch", batch)
    run("manufacturer", "publish", at, "--model", MODEL)
    return batch


def sell(places: Places, batch: str, say: Say) -> Holding:
    """Sell the whole batch to the distributor, and from there to the owner."""
    say("the devices are sold to a distributor, and on to the owner")
    first = _hand_over("manufacturer", places.manufacturer, places.distributor, places.papers / "first", batch)
    second = _hand_over("owner", places.distributor, places.owner, places.papers / "second", batch)
    assert second.tenure > first.tenure
    return second


def _hand_over(role: str, seller: Path, buyer: Path, papers: Path, batch: str) -> Holding:
    papers.mkdir(mode=0o700)
    purchase, sale = papers / "purchase.cbor", papers / "sale.cbor"
    run("owner", "request", buyer, "--out", purchase)
    run(role, "sell", seller, "--batch", batch, "--select", "all", "--to", purchase, "--out", sale)
    accepted = run("owner", "accept", buyer, sale)
    return Holding(accepted.text("batch"), accepted.number("tenure"))


def choose(places: Places, parties: Mapping[str, str], holding: Holding, count: int, say: Say) -> None:
    """Order at the MNO and the SP, and deploy the plan that names them."""
    say("the owner orders at an operator and a service provider, and deploys the plan")
    held = ("--batch", holding.batch, "--tenure", holding.tenure)
    chosen = {}
    for role, state in (("mno", places.mno), ("sp", places.sp)):
        party = parties[role]
        number = run("owner", "order", places.owner, *held, "--party", party, "--devices", count).text("order")
        run(role, "approve", state, number)
        chosen[role] = f"{party}:{number}"
    run("owner", "deploy", places.owner, *held, "--network", chosen["mno"], "--service", chosen["sp"])
