"""Notes of messages: durable, by grant, and forgotten but for the first of each."""

from __future__ import annotations

from pathlib import Path

import pytest

from firstlight.errors import StoreError
from firstlight.stores.messages import Messages, ReadMessage

GRANT = b"\x01" * 16


def note(time: int, grant: bytes | None = GRANT) -> ReadMessage:
    return ReadMessage("ab" * 16, grant, "devices/x/telemetry", time, 4)


def test_messages_stay(tmp_path: Path) -> None:
    path = tmp_path / "sp.sqlite"
    store = Messages.open(path)
    store.add([note(1), note(2), note(3, None)])
    store.close()
    again = Messages.open(path)
    assert again.of(GRANT) == (note(1), note(2))
    assert path.stat().st_mode & 0o777 == 0o600


def test_old_ones_go_but_the_first_of_each_grant_stays(tmp_path: Path) -> None:
    store = Messages.open(tmp_path / "sp.sqlite")
    store.add([note(1), note(2), note(30), note(3, b"\x02" * 16)])
    assert store.prune(10) == 1
    assert store.of(GRANT) == (note(1), note(30))
    assert store.of(b"\x02" * 16) == (note(3, b"\x02" * 16),)


def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = Messages.open(tmp_path / "sp.sqlite")
    store.close()
    with pytest.raises(StoreError, match="database-unusable"):
        store.add([note(1)])
