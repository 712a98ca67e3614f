"""Frames of the attach protocol over a stream."""

from __future__ import annotations

import asyncio

from firstlight.sim import attach


async def receive(reader: asyncio.StreamReader) -> attach.Message:
    """Return the next message.

    Raises :class:`firstlight.errors.MalformedError`, :class:`asyncio.IncompleteReadError`, :class:`OSError`.
    """
    size = attach.body_size(await reader.readexactly(2))
    return attach.parse(await reader.readexactly(size))


async def send(writer: asyncio.StreamWriter, message: attach.Message) -> None:
    """Send a message; raises :class:`OSError`."""
    writer.write(attach.frame(message))
    await writer.drain()
