import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from firstlight.cli.processes import ChildError, Family, deferred

LONG = 60.0
"""Seconds after which what is waited for will not come."""
READY = """
import json, os, pathlib, signal, sys
state = pathlib.Path(sys.argv[1])
state.mkdir(exist_ok=True)
{setup}
(state / "new").write_text(json.dumps({{"url": "http://127.0.0.1:1", "pid": os.getpid()}}))
(state / "new").rename(state / "endpoint")
while True:
    signal.pause()
"""
PLAIN = READY.format(setup="")
STUBBORN = READY.format(setup="signal.signal(signal.SIGTERM, signal.SIG_IGN)")
WITH_GRANDCHILD = READY.format(
    setup="import subprocess\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()'])\n"
    "(state / 'grandchild').write_text(str(child.pid))"
)


def python(code: str, *arguments: object) -> list[str]:
    return [sys.executable, "-I", "-c", code, *map(str, arguments)]


def alive(pid: int) -> bool:
    """Say whether a process runs; a zombie that nobody has waited for does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


def wait_gone(pid: int, seconds: float = LONG) -> bool:
    end = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.01)
    return not alive(pid)


def test_children_start_are_found_and_end(tmp_path: Path) -> None:
    with Family(tmp_path / "out") as family:
        one = family.start("one", python(PLAIN, tmp_path / "a"), state_dir=tmp_path / "a")
        two = family.start("two", python(PLAIN, tmp_path / "b"), state_dir=tmp_path / "b")
        assert family.wait_for_endpoint(one) == "http://127.0.0.1:1"
        family.wait_for_endpoint(two)
        assert os.getpgid(one.pid) == one.pid != os.getpgid(0)
        family.check()
    assert (one.process.wait(LONG), two.process.wait(LONG)) == (-signal.SIGTERM, -signal.SIGTERM)
    assert family.children == []


def test_an_endpoint_of_an_earlier_life_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "endpoint").write_text('{"url": "http://old", "pid": 1}')
    with Family(tmp_path / "out") as family:
        child = family.start("one", python(PLAIN, tmp_path / "a"), state_dir=tmp_path / "a")
        assert family.wait_for_endpoint(child) == "http://127.0.0.1:1"


def test_one_that_does_not_listen_is_killed_with_all_of_its_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("firstlight.cli.processes.TERM_SECONDS", 0.2)
    with Family(tmp_path / "out") as family:
        stubborn = family.start("stubborn", python(STUBBORN, tmp_path / "a"), state_dir=tmp_path / "a")
        parent = family.start("parent", python(WITH_GRANDCHILD, tmp_path / "b"), state_dir=tmp_path / "b")
        family.wait_for_endpoint(stubborn)
        family.wait_for_endpoint(parent)
        grandchild = int((tmp_path / "b" / "grandchild").read_text())
        assert alive(grandchild)
    assert stubborn.process.wait(LONG) == -signal.SIGKILL
    assert wait_gone(grandchild)


def test_the_time_to_end_is_bounded() -> None:
    from firstlight.cli import processes

    assert processes.TERM_SECONDS + processes.KILL_SECONDS < 5


def test_a_crash_names_the_child_and_its_last_lines(tmp_path: Path) -> None:
    with Family(tmp_path / "out") as family:
        child = family.start("mno", python("print('line one'); print('the reason'); raise SystemExit(7)"))
        child.process.wait(LONG)
        with pytest.raises(ChildError) as caught:
            family.check()
    assert caught.value.code == "child-ended"
    assert "mno ended with exit code 7" in caught.value.detail
    assert caught.value.detail.endswith("line one\nthe reason")


def test_a_crash_while_getting_ready_is_told_at_once(tmp_path: Path) -> None:
    with Family(tmp_path / "out") as family:
        child = family.start("sp", python("import os; os.kill(os.getpid(), 9)"), state_dir=tmp_path / "a")
        with pytest.raises(ChildError) as caught:
            family.wait_for_endpoint(child, 60)
    assert (caught.value.code, "sp was ended by SIGKILL" in caught.value.detail) == ("child-ended", True)


def test_a_silent_child_is_known_by_its_log(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"code":"cannot-listen"}\n')
    with Family(tmp_path / "out") as family:
        child = family.start("gateway", python("raise SystemExit(1)"), state_dir=tmp_path)
        child.process.wait(LONG)
        assert child.last_lines() == '{"code":"cannot-listen"}'
        family.forget(child)
        family.check()


def test_one_that_is_never_ready_is_late(tmp_path: Path) -> None:
    with Family(tmp_path / "out") as family:
        child = family.start("slow", python("import signal; signal.pause()"), state_dir=tmp_path / "a")
        with pytest.raises(ChildError) as caught:
            family.wait_for_endpoint(child, 0.1)
    assert caught.value.code == "child-late"


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with Family(tmp_path / "out") as family, pytest.raises(ChildError) as caught:
        family.start("none", [str(tmp_path / "none")])
    assert caught.value.code == "child-not-run"


def test_a_child_has_the_environment_it_is_given_and_no_other(tmp_path: Path) -> None:
    with Family(tmp_path / "out") as family:
        child = family.start("bare", ["/usr/bin/env"], environment={"ONLY": "this"}, directory=tmp_path)
        child.process.wait(LONG)
        assert child.output.read_text() == "ONLY=this\n"


PARENT = """
import pathlib, sys
from firstlight.cli.processes import Family
base = pathlib.Path(sys.argv[1])
with Family(base / "out") as family:
    child = family.start("one", [sys.executable, "-I", "-c", sys.argv[2], str(base / "a")], state_dir=base / "a")
    family.wait_for_endpoint(child)
    print(child.pid, flush=True)
    family.watch()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_child_outlives_us_however_we_end(tmp_path: Path, number: signal.Signals) -> None:
    arguments = [sys.executable, "-c", PARENT, str(tmp_path), PLAIN]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as parent:
        assert parent.stdout is not None
        try:
            child = int(parent.stdout.readline())
            parent.send_signal(number)
            parent.wait(LONG)
        finally:
            parent.kill()
    assert wait_gone(child)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_would_end_us_waits_until_a_child_is_one_of_the_family(tmp_path: Path, number: signal.Signals) -> None:
    went_on: list[bool] = []

    def interrupted() -> None:
        with deferred():
            signal.raise_signal(number)
            went_on.append(True)

    with Family(tmp_path / "out"):
        former = signal.getsignal(number)
        with pytest.raises(KeyboardInterrupt):
            interrupted()
        assert signal.getsignal(number) is former
    assert went_on == [True]
