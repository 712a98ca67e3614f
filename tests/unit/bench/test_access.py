"""The access benchmark: its report, and both authentication centres measured on a few devices."""

from pathlib import Path

import pytest

from firstlight.access.serving.daemons import EAPOL_TEST, HOSTAPD, OSMO_HLR
from firstlight.bench import access, access_server
from firstlight.bench.access import Report
from firstlight.bench.process import BenchError
from firstlight.testing.hostapd_world import needs

FIGURES = {"attaches_per_second_own": 20.0, "attaches_per_second_hlr": 18.0, "vector_cpu_ms": 0.2}


def test_a_cost_above_its_goal_is_missed_unless_few_were_asked_for() -> None:
    dear = FIGURES | {"vector_cpu_ms": 0.31}
    assert Report(1, access.FEWEST, FIGURES, {}, "").missed == []
    assert Report(1, access.FEWEST, dear, {}, "").missed == ["vector_cpu_ms"]
    assert Report(1, access.FEWEST - 1, dear, {}, "").missed == []


def test_the_report_names_what_it_measured() -> None:
    report = Report(7, 2_000, FIGURES, {"cpu": "it", "python": "it"}, "today")
    values = report.values()
    assert list(values)[:3] == list(FIGURES)
    assert values["goals"] == {"at_most": {"vector_cpu_ms": 0.3}}
    assert (values["devices"], values["vectors"], values["missed"]) == (7, 2_000, [])
    assert "goal ≤ 0.3" in report.text()


def test_both_centres_are_measured_through_hostapd_and_end_with_us(tmp_path: Path) -> None:
    needs(HOSTAPD, EAPOL_TEST, OSMO_HLR)
    said: list[str] = []
    report = access.measure(tmp_path, 4, 200, said.append)
    assert all(value > 0 for value in report.figures.values())
    assert set(report.figures) == {*FIGURES, "vector_cpu_ms_hlr"}
    left = [one for one in Path("/proc").iterdir() if one.name.isdigit() and place(one).startswith(str(tmp_path))]
    assert not left, "a program outlives the measurement"


def place(process: Path) -> str:
    """The directory that a process works in; nothing of one that has ended meanwhile."""
    try:
        return str((process / "cwd").readlink())
    except OSError:
        return ""


def test_an_operator_that_does_not_start_fails_the_measurement(tmp_path: Path) -> None:
    (tmp_path / access_server.DATABASE).mkdir()
    with pytest.raises(BenchError) as failed, access.running(access_server.OWN, tmp_path, 1):
        pass
    assert failed.value.code == "bench-stage-failed"
