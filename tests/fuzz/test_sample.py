"""The bounded run: every target gets its vectors and mutations of them by a fixed seed, then atheris has a short go."""

import subprocess
import sys
from pathlib import Path

from tests.sampling import FULL

ROOT = Path(__file__).parents[2]
SECONDS = 120 if FULL else 4
COUNT = "50000" if FULL else "1500"
MOST_SECONDS = "1000" if FULL else "1"


def fuzz(*arguments: str) -> str:
    command = [sys.executable, "-m", "tests.fuzz", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout + done.stderr


def test_no_mutation_crashes_or_hangs_a_parser() -> None:
    told = fuzz("--sample", COUNT, "--most-seconds", MOST_SECONDS)
    names = fuzz("--list").split()
    assert len(names) >= 25
    for name in names:
        assert f"{name}: " in told


def test_atheris_guides_its_inputs_into_one() -> None:
    told = fuzz("bundles", "--seconds", str(SECONDS), "--seed", "1")
    assert "Done " in told


def test_a_crash_is_told_with_its_input(tmp_path: Path) -> None:
    program = (
        "from tests.fuzz.__main__ import sample\n"
        "from tests.fuzz.target import Target\n"
        "sample([Target('it', (lambda data: data.decode('utf-8'),), (), (b'fine',))], 500, 1, 5.0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "it is broken by " in done.stderr
    assert "UnicodeDecodeError" in done.stderr
