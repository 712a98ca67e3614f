"""The demo's own rules: which devices share a process, and when it says that it has failed."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from firstlight.cli.demo import fleet, main
from firstlight.cli.demo.counts import Counts
from firstlight.cli.processes import Family
from firstlight.errors import AccessError

DEVICES = 3


class Started(Family):
    """Writes down what it was to start, and starts nothing."""

    def __init__(self) -> None:
        self.started: list[tuple[Sequence[str], Mapping[str, str] | None, Path | None]] = []

    def start(self, name: str, arguments: Sequence[str], **given: Any) -> Any:  # type: ignore[override]
        self.started.append((arguments, given["environment"], given["directory"]))


@pytest.mark.parametrize(
    ("devices", "isolate", "sizes"),
    [
        (1, False, [1]),
        (20, False, [1] * 20),
        (21, False, [21]),
        (64, False, [64]),
        (65, False, [64, 1]),
        (130, False, [64, 64, 2]),
        (65, True, [1] * 65),
    ],
)
def test_who_shares_a_process(tmp_path: Path, devices: int, isolate: bool, sizes: list[int]) -> None:
    family, places = Started(), [tmp_path / str(number) for number in range(devices)]
    assert fleet.switch_on(places, family, isolate=isolate) == len(sizes)
    shared = [[Path(word) for word in words if word.startswith(str(tmp_path))] for words, _, _ in family.started]
    assert [len(one) for one in shared] == sizes
    assert [place for one in shared for place in one] == places
    for (words, environment, directory), crew in zip(family.started, shared, strict=True):
        assert environment == {}
        assert directory == crew[0]
        assert words[3:5] == (["device", "run"] if isolate or devices <= 20 else ["device", "fleet"])


@pytest.mark.parametrize("connected", [0, DEVICES - 1, DEVICES])
def test_it_fails_unless_all_are_connected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, connected: int) -> None:
    counts = Counts(DEVICES, DEVICES, DEVICES, DEVICES, connected, DEVICES)

    def play(*_: object, **__: object) -> main.Report:
        return main.Report(DEVICES, counts, 21, 1.5)

    monkeypatch.setattr(main, "_play", play)
    if connected == DEVICES:
        main.command(devices=DEVICES, state=tmp_path / "world")
        return
    with pytest.raises(AccessError) as failed:
        main.command(devices=DEVICES, state=tmp_path / "world")
    assert failed.value.code == "demo-incomplete"


def test_the_report_has_the_fields_that_were_promised() -> None:
    values = main.Report(7, Counts(1, 2, 3, 4, 5, 6), 21, 1.23456).values()
    assert json.loads(json.dumps(values)) == {
        "devices": 7,
        "discovered": 1,
        "network_granted": 2,
        "attached": 3,
        "service_granted": 4,
        "connected": 5,
        "receipts_read": 6,
        "ledger_transactions": 21,
        "seconds": 1.235,
    }
