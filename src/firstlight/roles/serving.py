"""Serving on a port that outlives the process: the one that the system chose is written down and used again.

Others have this role's URL in their settings, on the ledger or at birth; a restart must not change it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.types import ASGIApp

from firstlight.errors import ConfigError, StoreError
from firstlight.files import read_limited, write_atomic
from firstlight.settings import Served
from firstlight.transports.http import Answering, Beside, answering, serve_by

PORT = "port"


async def serve_role(
    app: ASGIApp,
    state_dir: Path,
    settings: Served,
    *,
    on_ready: Callable[[str], Awaitable[None]] | None = None,
    beside: Beside | None = None,
) -> None:
    """Serve ``app``; as :func:`serve_role_by`."""
    await serve_role_by(answering(app), state_dir, settings, on_ready=on_ready, beside=beside)


async def serve_role_by(
    by: Answering,
    state_dir: Path,
    settings: Served,
    *,
    on_ready: Callable[[str], Awaitable[None]] | None = None,
    beside: Beside | None = None,
) -> None:
    """Have ``by`` serve until SIGTERM or SIGINT, on the port of the settings, else on the last time's if it is free.

    ``beside`` serves over CoAP too. Raises :class:`ConfigError` (``cannot-listen``).
    """

    async def ready(url: str) -> None:
        write_atomic(state_dir / PORT, url.rpartition(":")[2].encode())
        if on_ready is not None:
            await on_ready(url)

    last = settings.port or last_port(state_dir)
    try:
        await serve_by(by, state_dir, host=settings.host, port=last, on_ready=ready, beside=beside)
    except ConfigError as error:
        if error.code != "cannot-listen" or settings.port or not last:
            raise
        await serve_by(by, state_dir, host=settings.host, on_ready=ready, beside=beside)


def last_port(state_dir: Path) -> int:
    """Return the port that the role of a state directory listened on last; 0 if that is not known."""
    try:
        text = read_limited(state_dir / PORT, 5)
    except StoreError:
        return 0
    return int(text) if text.isdigit() and int(text) < 65_536 else 0
