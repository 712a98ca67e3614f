"""The soft USIM as one file, replaced atomically and durably."""

from __future__ import annotations

from pathlib import Path

from firstlight.errors import MalformedError, StoreError
from firstlight.files import read_limited, write_atomic
from firstlight.sim.subscription import SoftSim


class SimFile:
    """A :class:`firstlight.access.ports.SimStore` in a file, mode 0600."""

    def __init__(self, path: Path) -> None:
        """Keep the USIM at ``path``."""
        self._path = path

    def load(self) -> SoftSim:
        """Return the USIM; :class:`StoreError` (``file-missing``, ``sim-damaged`` and what files raise)."""
        try:
            return SoftSim.decode(read_limited(self._path, SoftSim.LIMIT, private=True))
        except MalformedError as error:
            raise StoreError("sim-damaged", f"{self._path} is not a USIM: {error.code}") from error

    def save(self, sim: SoftSim) -> None:
        """Replace the USIM; returns when it is on disk."""
        write_atomic(self._path, sim.encode())
