"""Run targets: see the package's docstring. Exit code 0: nothing found; another: the input and the error are shown."""

from __future__ import annotations

import argparse
import faulthandler
import random
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.fuzz.target import Target

HANG_SECONDS = 20


def targets() -> dict[str, Target]:
    """Return all targets by name."""
    from tests.fuzz import exchanges, structures

    return {one.name: one for one in (*structures.TARGETS, *exchanges.TARGETS)}


def sample(chosen: Iterable[Target], count: int, seed: int, most_seconds: float) -> int:
    """Feed each target its seeds and ``count`` mutations of them; return the exit code.

    A target gets fewer if they take it more than ``most_seconds``: the same ones first, however fast the machine.
    """
    from tests.fuzz.mutate import mutated

    for target in chosen:
        dice = random.Random(f"{seed} {target.name}")
        seeds = target.seeds()
        began, done = time.monotonic(), 0
        data = b""
        faulthandler.dump_traceback_later(HANG_SECONDS + most_seconds, exit=True)
        try:
            for data in seeds:
                target(data)
            while done < count and time.monotonic() - began < most_seconds:
                data = mutated(seeds, dice)
                target(data)
                done += 1
        except BaseException:
            sys.stderr.write(f"{target.name} is broken by {data.hex()}\n")
            raise
        faulthandler.cancel_dump_traceback_later()
        sys.stdout.write(f"{target.name}: {done} in {time.monotonic() - began:.2f} s\n")
    return 0


def guided(name: str, seconds: int, seed: int) -> None:
    """Run one target under atheris; ends the process."""
    import atheris

    with atheris.instrument_imports(include=["firstlight"]) if "firstlight" not in sys.modules else nullcontext():
        target = targets()[name]
    with tempfile.TemporaryDirectory(prefix="firstlight-fuzz-") as directory:
        for number, data in enumerate(target.seeds()):
            (Path(directory) / f"{number}").write_bytes(data)
        options = [
            f"-max_total_time={seconds}",
            f"-seed={seed}",
            f"-timeout={HANG_SECONDS}",
            "-max_len=16384",
            "-rss_limit_mb=2048",
        ]
        atheris.Setup([sys.argv[0], *options, directory], target)
        atheris.Fuzz()


def main() -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", nargs="?", help="one target; without --sample it runs under atheris")
    parser.add_argument("--seconds", type=int, default=0, help="under atheris: stop after so long (0: never)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--sample", type=int, default=0, metavar="N", help="N mutations by the seed, of one or every target"
    )
    parser.add_argument("--most-seconds", type=float, default=10.0, help="with --sample: a target's longest time")
    parser.add_argument("--list", action="store_true", help="name the targets")
    chosen = parser.parse_args()
    if chosen.list:
        sys.stdout.write("\n".join(targets()) + "\n")
    elif chosen.sample:
        found = targets()
        wanted = [found[chosen.target]] if chosen.target else list(found.values())
        return sample(wanted, chosen.sample, chosen.seed, chosen.most_seconds)
    elif chosen.target:
        guided(chosen.target, chosen.seconds, chosen.seed)
    else:
        parser.print_help()
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
