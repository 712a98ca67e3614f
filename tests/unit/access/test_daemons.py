"""Programs that others wrote: found or named, heard without their secrets, ended in time, and never left behind."""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from firstlight.access.serving.daemons import Daemon, Program, Recipe, redacted, running
from firstlight.errors import AccessError

SH = Program("sh", "dash")


def recipe(path: Path, script: str, **more: object) -> Recipe:
    return Recipe(SH, ("-c", script), path / "daemon", **more)  # type: ignore[arg-type]


def failure(one: Recipe) -> AccessError:
    async def main() -> None:
        await Daemon.start(one)

    with pytest.raises(AccessError) as caught:
        asyncio.run(main())
    return caught.value


def test_a_program_that_is_not_there_is_named_with_its_package(tmp_path: Path) -> None:
    error = failure(Recipe(Program("no-such-program", "its-package"), (), tmp_path))
    assert (error.code, error.hint) == ("daemon-missing", "apt-get install its-package")


def gone(pid: int) -> bool:
    """Whether a process has ended, be it that nobody has waited for it."""
    try:
        return Path("/proc", str(pid), "stat").read_text().split()[2] == "Z"
    except OSError:
        return True


async def never() -> bool:
    return False


def test_one_that_dies_or_does_not_serve_says_the_last_that_it_said_without_secrets(tmp_path: Path) -> None:
    secret = "00112233445566778899aabbccddeeff"
    died = failure(recipe(tmp_path, f"echo the key is {secret}; exit 7", ready=never))
    assert died.code == "daemon-died"
    assert "ended with 7: the key is …" in died.detail
    assert secret not in died.detail
    late = failure(recipe(tmp_path, "echo waiting; exec sleep 1000", ready=never, seconds=0.3))
    assert (late.code, "waiting" in late.detail) == ("daemon-late", True)


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("MSK - hexdump(len=16): 00 11 22 33 44 55 66 77 88 99 aa bb cc dd ee ff", "MSK - hexdump(len=16): …"),
        ("identity 6001010000000001@wlan", "identity …@wlan"),
        ("eth0: CTRL-EVENT-EAP-SUCCESS EAP authentication completed", None),
    ],
)
def test_what_could_be_a_key_or_an_identity_is_cut_out(line: str, kept: str | None) -> None:
    assert redacted(line + "\n") == (line if kept is None else kept)


def test_files_are_private_and_the_directory_is_where_it_runs(tmp_path: Path) -> None:
    async def main() -> None:
        async def done() -> bool:
            return (tmp_path / "daemon" / "copy").exists()

        script = "cat own.conf > part; mv part copy; exec sleep 1000"
        async with running(recipe(tmp_path, script, files={"own.conf": "secret"}, ready=done)) as daemon:
            assert (tmp_path / "daemon" / "copy").read_text() == "secret"
            assert (tmp_path / "daemon" / "own.conf").stat().st_mode & 0o777 == 0o600
            assert (tmp_path / "daemon").stat().st_mode & 0o777 == 0o700
            assert daemon.alive
        assert not daemon.alive

    asyncio.run(main())


def test_one_that_will_not_end_is_made_to_with_all_that_it_started(tmp_path: Path) -> None:
    async def main() -> None:
        children = tmp_path / "daemon" / "child"

        async def done() -> bool:
            return children.exists() and bool(children.read_text())

        script = "trap '' TERM; sleep 1000 & echo $! > child; wait; wait"
        daemon = await Daemon.start(recipe(tmp_path, script, ready=done))
        child = int(children.read_text())
        await daemon.stop()
        assert not daemon.alive
        assert gone(daemon.pid)
        assert gone(child)

    asyncio.run(main())


def test_none_outlives_one_who_is_killed(tmp_path: Path) -> None:
    program = (
        "import asyncio, os, signal, sys\n"
        "from pathlib import Path\n"
        "from firstlight.access.serving.daemons import *\n"
        "async def main():\n"
        "    one = await Daemon.start(Recipe(Program('sleep', 'coreutils'), ('1000',), Path(sys.argv[1])))\n"
        "    while Path(f'/proc/{one.pid}/comm').read_text() != 'sleep\\n': await asyncio.sleep(0.01)\n"
        "    print(one.pid, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())\n"
    )
    done = subprocess.run([sys.executable, "-c", program, tmp_path], check=False, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL
    pid = int(done.stdout)
    for _ in range(1_000):
        if gone(pid):
            return
        asyncio.run(asyncio.sleep(0.01))
    raise AssertionError("it lives on")
