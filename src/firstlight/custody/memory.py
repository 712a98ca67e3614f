"""Keeping what is in memory out of swap and out of core files, as far as the system lets us."""

from __future__ import annotations

import ctypes
import resource

_CURRENT, _FUTURE, _ON_FAULT = 1, 2, 4


def guard_memory() -> bool:
    """Write no core files from now on, and lock all memory of this process; say whether locking was possible.

    Memory is locked only where nothing limits how much (``ulimit -l unlimited``, ``LimitMEMLOCK=infinity``): under a
    limit, a process that locks everything fails at some later allocation.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    if resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] != resource.RLIM_INFINITY:
        return False
    return bool(ctypes.CDLL(None).mlockall(_CURRENT | _FUTURE | _ON_FAULT) == 0)
