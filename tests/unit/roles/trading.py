"""A manufacturer, a distributor and an owner who trade over a node in memory."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from firstlight.files import private_directory, write_atomic
from firstlight.ledger.records import Role
from firstlight.roles import registration
from firstlight.roles.holdings import Holding, read_selection
from firstlight.roles.manufacturer.anchor import anchor, choose
from firstlight.roles.manufacturer.make import MadeBatch, Make, make
from firstlight.roles.trade import Accepted, Sold, Terms, accept, read_purchase, request, sell
from firstlight.roles.workplace import Workplace
from firstlight.settings import ManufacturerSettings, OwnerSettings
from firstlight.testing.chains import GENESIS
from firstlight.testing.clock import FakeClock
from firstlight.testing.memory_node import MemoryNode
from firstlight.testing.random import SeededRandom


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for the disk: what these tests interrupt is the program, not the machine."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(os, "sync", lambda: None)


GATEWAY = "http://127.0.0.1:7001"
NODE = "http://127.0.0.1:7000"


def workplace(directory: Path, node: MemoryNode, kind: type[ManufacturerSettings] | type[OwnerSettings]) -> Workplace:
    settings = kind(chain=node.genesis.chain, node=NODE, gateways=(GATEWAY,))
    write_atomic(private_directory(directory) / registration.GENESIS, node.genesis.encode())
    random = SeededRandom(directory.name)
    return Workplace(directory, settings, node.genesis, FakeClock(GENESIS), random, http=node)


def register(place: Workplace, node: MemoryNode, role: Role, *endpoints: str) -> bytes:
    keys = registration.create(place.directory, agreement=role is not Role.MANUFACTURER)
    data = registration.request(keys, [role], chain=place.chain, endpoints=endpoints)
    endorsed = registration.endorse(data, node.ledger.consortium.roots[0], chain=place.chain)
    assert node.ledger.apply(endorsed.transaction).outcome is not None
    return keys.party


@dataclass(frozen=True, slots=True)
class Market:
    root: Path
    node: MemoryNode
    maker: Workplace
    made: MadeBatch

    @classmethod
    def open(cls, root: Path, *, devices: int = 12) -> Market:
        node = MemoryNode()
        maker = workplace(root / "maker", node, ManufacturerSettings)
        register(maker, node, Role.MANUFACTURER)
        make(maker, Make(devices, b"fl-1", root / "devices", (GATEWAY,)), lambda _: None)
        made = anchor(maker, choose(maker, None)).made
        return cls(root, node, maker, made)

    def owner(self, name: str) -> Workplace:
        return workplace(self.root / name, self.node, OwnerSettings)

    def offer(self, seller: Workplace, holding: Holding, buyer: Workplace, select: str = "all") -> tuple[Sold, Path]:
        self.node.ledger.time += 1
        purchase, sale = self.root / f"{buyer.directory.name}.purchase", self.root / f"{buyer.directory.name}.sale"
        request(buyer, purchase)
        terms = Terms(read_selection(select), None, 3_600)
        return sell(seller, holding, terms, read_purchase(purchase, seller.chain), sale), sale

    def hand_over(self, seller: Workplace, holding: Holding, buyer: Workplace, select: str = "all") -> Accepted:
        _, sale = self.offer(seller, holding, buyer, select)
        return accept(buyer, sale, delay=0)

    def later(self, place: Workplace, seconds: int) -> Workplace:
        """Return the place with time moved on, on the ledger too."""
        self.node.ledger.time += seconds
        return replace(place, clock=FakeClock(place.now() + seconds))
