"""The garbage collector, kept out of the way while a large change makes a great many nodes that stay."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collector_paused(*, when: bool) -> Iterator[None]:
    """Keep the collector from walking millions of live nodes again and again; nothing changes unless ``when``."""
    if not when or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
