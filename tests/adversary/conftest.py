"""One world of real processes for all adversary tests of a worker; each test takes devices of its own from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from firstlight.cli.processes import Family
from firstlight.testing.lab import Lab, open_lab

DEVICES = 64


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    root: Path = tmp_path_factory.mktemp("lab")
    with Family(root / "output") as family:
        yield from open_lab(root, family, devices=DEVICES)
