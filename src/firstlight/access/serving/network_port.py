"""The port behind which an operator's access network stands, whichever serves it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

Report = Callable[[str], None]
"""Told the code of each outcome; never who it was."""


class Standing(Protocol):
    """Says which subscriptions may stay, so that what another process changes takes effect here too."""

    def watch(self, watcher: Callable[[tuple[str, ...]], None]) -> None:
        """Tell ``watcher``, from any thread, which subscriptions have stopped being usable."""
        ...

    def version(self) -> object:
        """Return something that differs whenever anything may have changed."""
        ...

    def unusable(self, imsis: Iterable[str]) -> set[str]:
        """Return those that may not be attached."""
        ...


class NetworkServing(Protocol):
    """An access network: it authenticates devices, opens their way, and closes it when a subscription ends."""

    async def start(self, standing: Standing | None = None) -> None:
        """Serve; ``standing`` says who may no longer stay.

        Raises :class:`firstlight.errors.AccessError`: ``port-unavailable``, and for networks that others wrote what
        :mod:`firstlight.access.serving.daemons` raises.
        """
        ...

    async def close(self) -> None:
        """End all sessions, record that, and stop serving."""
        ...

    @property
    def endpoint(self) -> str:
        """Where devices attach, as their grants name it: ``scheme://host:port``."""
        ...

    def listens(self) -> Mapping[str, int]:
        """Return the ports to use again after a restart, by name."""
        ...

    def attached(self) -> int:
        """Return how many devices are attached now."""
        ...

    def drop(self, imsis: Iterable[str]) -> None:
        """End these subscriptions' sessions at once; from any thread."""
        ...
