"""bin/lib/setup.sh, bin/test and the hooks of tests/conftest.py, with stand-ins for what they call."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "bin" / "lib" / "setup.sh"


def program(directory: Path, name: str, body: str) -> None:
    directory.mkdir(exist_ok=True)
    (directory / name).write_text(f"#!/bin/bash\n{body}\n")
    (directory / name).chmod(0o755)


def bash(script: str, path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": f"{path}:/usr/bin:/bin", "HOME": str(path)} | environment
    return subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=False)


def packages(path: Path, *names: str) -> subprocess.CompletedProcess[str]:
    return bash(f". {LIBRARY}; packages {' '.join(names)}; echo went on", path)


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A root's machine that has the package `here`, and an apt-get that writes down its calls."""
    tools = tmp_path / "tools"
    program(tools, "id", "echo 0")
    program(tools, "dpkg-query", '[ "$4" = here ] && echo "install ok installed"')
    program(tools, "apt-get", f'echo "$DEBIAN_FRONTEND $*" >> {tmp_path}/calls')
    return tools


def test_what_is_installed_is_left_alone(machine: Path) -> None:
    assert packages(machine, "here").stdout == "went on\n"
    assert not (machine.parent / "calls").exists()


def test_root_updates_once_and_installs_what_is_missing(machine: Path) -> None:
    assert packages(machine, "here", "one", "two").stdout == "went on\n"
    assert (machine.parent / "calls").read_text().splitlines() == [
        "noninteractive -q update",
        "noninteractive -q -y --no-install-recommends install one two",
    ]


def test_others_are_told_the_exact_package(machine: Path) -> None:
    program(machine, "id", "echo 1000")
    done = packages(machine, "here", "mosquitto")
    assert done.returncode == 3
    assert done.stdout == ""
    assert "missing Debian package: mosquitto\n" in done.stderr
    assert not (machine.parent / "calls").exists()


def test_an_installation_that_fails_names_the_package_too(machine: Path) -> None:
    program(machine, "apt-get", "echo no network; exit 100")
    done = packages(machine, "mosquitto")
    assert done.returncode == 3
    assert "no network" in done.stderr
    assert "missing Debian package: mosquitto\n" in done.stderr


def test_a_python_without_venv_is_not_taken(machine: Path) -> None:
    program(machine, "lame", "exit 1")
    script = f'. {LIBRARY}; python_that "import venv, ensurepip"'
    found = bash(script, machine, FIRSTLIGHT_PYTHON=str(machine / "lame")).stdout.strip()
    assert found
    assert found != str(machine / "lame")
    assert bash(script, machine, FIRSTLIGHT_PYTHON=sys.executable).stdout.strip() == sys.executable


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    """A finished set-up whose tools all succeed."""
    path = tmp_path / "venv"
    path.mkdir()
    for name in ("python", "ruff", "mypy", "lint-imports"):
        program(path / "bin", name, "exit 0")
    program(path / "bin", "pytest", f'echo "$FIRSTLIGHT_FULL|$*" > {tmp_path}/pytest; echo "3 passed in 0.1s"')
    script = f'. {LIBRARY}; stamp_of "$(find_python)" > "$VENV/.stamp"'
    assert bash(script, tmp_path, FIRSTLIGHT_VENV=str(path)).returncode == 0
    program(made(tmp_path), "cometbft", "echo 0.38.25")
    return path


def made(home: Path) -> Path:
    """Return where CometBFT is kept."""
    place = home / ".cache" / "firstlight" / "bin"
    place.mkdir(parents=True, exist_ok=True)
    return place


GO = """
[ "$1" = env ] && { echo go1.26.1; exit; }
echo "$* $CGO_ENABLED" >> "$HOME/calls"
printf '#!/bin/bash\\necho 0.38.25\\n' > "$GOBIN/cometbft"; chmod +x "$GOBIN/cometbft"
"""


def comet(path: Path) -> subprocess.CompletedProcess[str]:
    return bash(f". {LIBRARY}; . {LIBRARY.with_name('cometbft.sh')}; cometbft", path)


def test_cometbft_is_built_once_with_the_go_that_is_there(tmp_path: Path) -> None:
    program(tmp_path, "go", GO)
    done = comet(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "building CometBFT 0.38.25 with go1.26.1" in done.stderr
    assert (tmp_path / "calls").read_text() == "install github.com/cometbft/cometbft/cmd/cometbft@v0.38.25 0\n"
    assert sorted(one.name for one in made(tmp_path).parent.iterdir()) == [".lock", "bin"]
    again = comet(tmp_path)
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    assert len((tmp_path / "calls").read_text().splitlines()) == 1


def test_another_version_of_cometbft_is_replaced(tmp_path: Path) -> None:
    program(tmp_path, "go", GO)
    program(made(tmp_path), "cometbft", "echo 0.38.24")
    assert comet(tmp_path).returncode == 0
    assert "0.38.25" in (made(tmp_path) / "cometbft").read_text()


def test_a_build_that_fails_says_so_and_leaves_nothing(tmp_path: Path) -> None:
    program(tmp_path, "go", '[ "$1" = env ] && { echo go1.26.1; exit; }; echo no network >&2; exit 1')
    done = comet(tmp_path)
    assert done.returncode == 4
    assert "no network" in done.stderr
    assert "could not be built" in done.stderr
    assert list(made(tmp_path).iterdir()) == []
    assert sorted(one.name for one in made(tmp_path).parent.iterdir()) == [".lock", "bin"]


def test_without_cometbft_the_other_checks_run_and_ci_fails(venv: Path) -> None:
    (made(venv.parent) / "cometbft").unlink()
    program(venv / "bin", "go", '[ "$1" = env ] && { echo go1.26.1; exit; }; echo no network >&2; exit 1')
    done = checks(venv)
    assert done.returncode == 0
    assert "cometbft FAILED" in done.stdout
    assert "skipped" in done.stderr
    assert bash(f"{ROOT}/bin/test", venv.parent, FIRSTLIGHT_VENV=str(venv), CI="true").returncode == 1


def checks(venv: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return bash(f"{ROOT}/bin/test {' '.join(arguments)}", venv.parent, FIRSTLIGHT_VENV=str(venv))


def test_each_step_has_a_line_and_the_last_is_pytests_own(venv: Path) -> None:
    done = checks(venv)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [line.split()[:2] for line in lines[:-1]] == [
        [step, "ok"] for step in ("format", "lint", "types", "imports")
    ]
    assert lines[-1] == "3 passed in 0.1s"
    assert (venv.parent / "pytest").read_text() == "|-n 3 --dist loadfile --no-loadscope-reorder\n"


def test_all_steps_run_and_all_failures_are_named(venv: Path) -> None:
    program(venv / "bin", "mypy", "echo line 3: wrong; exit 1")
    program(venv / "bin", "pytest", "echo 1 failed; exit 1")
    done = checks(venv)
    assert done.returncode == 1
    assert done.stderr == "failed: types tests\n"
    assert "line 3: wrong" in done.stdout
    assert "imports  ok" in done.stdout


def test_arguments_go_to_pytest_and_full_into_the_environment(venv: Path) -> None:
    assert checks(venv, "--full", "tests/unit", "-x").returncode == 0
    assert (venv.parent / "pytest").read_text() == "1|-n 3 --dist loadfile --no-loadscope-reorder tests/unit -x\n"


def test_the_demo_gets_its_arguments_where_it_was_called_and_its_exit_code_comes_back(venv: Path) -> None:
    program(venv / "bin", "firstlight", 'echo "$PWD|$*"; exit 7')
    script = f"cd {venv.parent} && {ROOT}/bin/demo --devices 3 --json 'a b.json'"
    done = bash(script, venv.parent, FIRSTLIGHT_VENV=str(venv))
    assert (done.returncode, done.stdout) == (7, f"{venv.parent}|demo --devices 3 --json a b.json\n")


def test_help_needs_no_set_up(tmp_path: Path) -> None:
    done = bash(f"{ROOT}/bin/test --help", tmp_path, FIRSTLIGHT_VENV=str(tmp_path / "none"))
    assert done.returncode == 0
    assert "bin/test --full" in done.stdout
    assert not (tmp_path / "none").exists()


SKIPPED = """
import pytest

@pytest.mark.skip(reason="later")
def test_marked(): pass

def test_called(): pytest.skip("now")

@pytest.mark.xfail(strict=True)
def test_expected(): assert False

def test_fine(): pass
"""
SKIPPED_MODULE = "import pytest\npytest.importorskip('no_such_module')\ndef test_it(): pass\n"


@pytest.mark.parametrize(
    ("ci", "closing"),
    [("true", "1 failed, 1 passed, 1 xfailed, 2 errors"), ("", "1 passed, 3 skipped, 1 xfailed")],
)
def test_a_skipped_test_is_a_failure_in_ci(tmp_path: Path, ci: str, closing: str) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    (tmp_path / "test_some.py").write_text(SKIPPED)
    (tmp_path / "test_module.py").write_text(SKIPPED_MODULE)
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--continue-on-collection-errors"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(tmp_path)],
        env={**os.environ, "CI": ci, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert closing in done.stdout.splitlines()[-1]
    assert done.returncode == (1 if ci else 0)


@pytest.mark.parametrize("place", ["vectors", "interop"])
def test_a_skipped_vector_or_peer_is_a_failure_everywhere(tmp_path: Path, place: str) -> None:
    tests = tmp_path / "tests" / place
    tests.mkdir(parents=True)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tests.parent / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    (tests / "test_some.py").write_text(SKIPPED)
    (tests / "test_module.py").write_text(SKIPPED_MODULE)
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--continue-on-collection-errors"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(tests.parent)],
        env={**os.environ, "CI": "", "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "1 failed, 1 passed, 1 xfailed, 2 errors" in done.stdout.splitlines()[-1]
    assert done.returncode == 1
