"""Copied into every mutated tree as ``firstlight/_mutants.py``: says of each refusal whether it stands.

It is no part of the product. Beside the tree lies a directory ``state``: while a file ``active`` is in it, the check
that it names never refuses; while ``heard`` is, every refusal is written there.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar, copy_context
from pathlib import Path
from typing import Any

STATE = Path(__file__).resolve().parents[2] / "state"
ACTIVE, HEARD = STATE / "active", STATE / "heard"
_stack: ContextVar[tuple[str, ...]] = ContextVar("stack", default=())
KINDS = {
    "NotEnoughTrust": "not-enough-trust",
    "MacFailure": "mac-failure",
    "SyncFailure": "sync-failure",
}


_submit = ThreadPoolExecutor.submit


def _submit_inside(self: ThreadPoolExecutor, work: Callable[..., Any], /, *given: Any, **named: Any) -> Future[Any]:
    return _submit(self, copy_context().run, work, *given, **named)


ThreadPoolExecutor.submit = _submit_inside  # type: ignore[method-assign, assignment]
"""What a verifier has a thread do is done inside of that verifier."""


class inside:  # noqa: N801 - reads as what it does
    """While it lasts, one is inside these verifiers."""

    def __init__(self, *names: str) -> None:
        self._names = names

    def __enter__(self) -> None:
        self._before = _stack.get()
        _stack.set((*self._before, *self._names))

    def __exit__(self, *_: object) -> None:
        _stack.set(self._before)


def stands(refusal: object, number: int | None = None) -> bool:
    """Return whether a refusal is made: not if it is one by the check that is switched off."""
    code = getattr(refusal, "code", None) or getattr(refusal, "reason", None) or KINDS.get(type(refusal).__name__, "")
    stack = _stack.get()
    with contextlib.suppress(FileNotFoundError):
        _tell(stack, code, number)
    try:
        mutants = json.loads(ACTIVE.read_bytes())
    except (FileNotFoundError, ValueError):
        return True
    return not any(concerns(one, stack, code, number) for one in mutants)


def concerns(mutant: dict[str, object], stack: tuple[str, ...], code: str, number: int | None) -> bool:
    """Return whether a refusal with ``code``, in the verifiers on the stack, is one by the check of ``mutant``."""
    if mutant["scope"] not in stack:
        return False
    inner = stack[stack.index(str(mutant["scope"])) :]
    if mutant["part"] is not None and mutant["part"] not in inner[1:]:
        return False
    return mutant["code"] in (None, code) and mutant["number"] in (None, number)


def _tell(stack: tuple[str, ...], code: str, number: int | None) -> None:
    if not stack:
        return
    line = json.dumps([stack, code, number]).encode() + b"\n"
    file = os.open(HEARD, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(file, line)
    finally:
        os.close(file)
