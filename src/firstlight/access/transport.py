"""Ending connections at once, on every Python that is supported."""

from __future__ import annotations

import asyncio
import contextlib


def abort(transport: asyncio.WriteTransport) -> None:
    """Close ``transport`` without flushing; one that is closed already is no error.

    A TLS transport of CPython before 3.11.4 that was closed twice has let go of its connection, and its ``abort``
    raises AttributeError.
    """
    with contextlib.suppress(AttributeError):
        transport.abort()
