from __future__ import annotations

import pytest

from firstlight.testing.chains import P256Key
from firstlight.testing.ledgers import MemoryLedger, World, digest

MAKER = P256Key("maker")
SELLER = P256Key("seller")
RECOVERY = P256Key("seller's recovery")


@pytest.fixture
def world() -> World:
    """A manufacturer with a batch of eight, all in tenure 1 of SELLER with an hour's transfer delay."""
    ledger = MemoryLedger()
    party = ledger.register(MAKER)
    batch = ledger.anchor(MAKER, party, SELLER, recovery=digest(RECOVERY.public), delay=3_600)
    return World(ledger, party, batch)


@pytest.fixture
def maker() -> P256Key:
    return MAKER


@pytest.fixture
def seller() -> P256Key:
    return SELLER


@pytest.fixture
def recovery() -> P256Key:
    return RECOVERY
