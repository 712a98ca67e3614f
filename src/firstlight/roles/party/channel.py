"""What a party's parent process and a worker say to each other: frames over a socket pair, kept nowhere.

Parent to worker: the set-up (where devices connect afterwards) and key rings. Worker to parent: that it listens, that
it has a ring, and which grants ended when it committed new ones. The end of the stream ends the worker.
"""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from firstlight.encoding import Bytes16, Bytes32, Count, Record, Text, Uint, decode, encode
from firstlight.errors import MalformedError
from firstlight.onboarding.token import KeyRing, TokenKey

MAX_FRAME = 65_536
_LENGTH = struct.Struct(">I")


@dataclass(frozen=True, slots=True)
class Setup(Record):
    """Where devices connect with what they are granted."""

    where: Annotated[str, Text(r"[a-z]{1,8}://[!-~]{1,200}")]


@dataclass(frozen=True, slots=True)
class Key(Record):
    """A token key."""

    secret: Bytes32 = field(repr=False)
    made_ns: Uint


@dataclass(frozen=True, slots=True)
class Ring(Record):
    """The token keys in use from now on; ``number`` counts them."""

    number: Uint
    current: Key
    previous: Key | None

    @classmethod
    def of(cls, number: int, ring: KeyRing) -> Ring:
        """Return a ring as it is sent."""
        previous = ring.previous
        return cls(
            number,
            Key(ring.current.secret, ring.current.made_ns),
            None if previous is None else Key(previous.secret, previous.made_ns),
        )

    def keys(self) -> KeyRing:
        """Return the ring."""
        previous = None if self.previous is None else TokenKey(self.previous.secret, self.previous.made_ns)
        return KeyRing(TokenKey(self.current.secret, self.current.made_ns), previous)


@dataclass(frozen=True, slots=True)
class Listening(Record):
    """The worker takes connections."""

    pid: Uint


@dataclass(frozen=True, slots=True)
class Have(Record):
    """The worker uses the ring of that number."""

    number: Uint


@dataclass(frozen=True, slots=True)
class Ended(Record):
    """Grants that ended because the worker committed others."""

    LIMIT: ClassVar[int] = MAX_FRAME

    grants: Annotated[tuple[Bytes16, ...], Count(1_024)]


Frame = Setup | Ring | Listening | Have | Ended
_KINDS: tuple[type[Frame], ...] = (Setup, Ring, Listening, Have, Ended)


def frame(message: Frame) -> bytes:
    """Return a message as it is sent."""
    body = encode([_KINDS.index(type(message)), message.encode()])
    return _LENGTH.pack(len(body)) + body


async def read_frame(reader: asyncio.StreamReader) -> Frame | None:
    """Return the next message, None at the end; :class:`MalformedError`."""
    try:
        (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
        if length > MAX_FRAME:
            raise MalformedError("too-large", "a frame between processes of one party")
        value = decode(await reader.readexactly(length), limit=MAX_FRAME)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    match value:
        case [int(kind), bytes(body)] if 0 <= kind < len(_KINDS):
            return _KINDS[kind].decode(body)
    raise MalformedError("wrong-shape", "not a frame between processes of one party")
