"""Stages as processes of their own: started, heard, and ended with us."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any

from firstlight.errors import FirstlightError

ENDING = frozenset({signal.SIGINT, signal.SIGTERM})
"""The signals that end the benchmark; a stage begins with them blocked."""


class BenchError(FirstlightError):
    """A stage that failed (``bench-stage-failed``)."""


def run_process(name: str, command: Sequence[str]) -> dict[str, Any]:
    """Run ``command`` in a fresh process and return the object that its last line holds, as JSON.

    The process never outlives this call. Raises :class:`BenchError` (``bench-stage-failed``) under ``name``.
    """
    with started(command) as process:
        output, errors = process.communicate()
    if process.returncode:
        lines = errors.strip().splitlines()
        raise BenchError("bench-stage-failed", f"{name}: {lines[-1] if lines else f'exit {process.returncode}'}")
    printed: dict[str, Any] = json.loads(output.splitlines()[-1])
    return printed


@contextlib.contextmanager
def started(command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    """Run a process in a session of its own, so that Ctrl-C reaches us alone, and end it if we are ended.

    What would end us waits while the process is being started: until it is ours, nobody could end it.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)
    try:
        process = subprocess.Popen(  # noqa: S603 - this interpreter, no shell
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
    except OSError as error:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        raise BenchError("bench-stage-failed", f"{command[0]}: {error.strerror or error}") from error
    with process:
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            yield process
        except BaseException:
            process.kill()
            raise
