"""The attach protocol: AKA' (RFC 9048) between a device and its operator, in frames over a byte stream.

    device                                   network
      | -- Identity (SUCI, nonce) -------------> |
      | <-- Challenge (RAND, AUTN, name, MAC) -- |   SQN is stored before this leaves
      | -- Response (RES, MAC) ----------------> |   SQN is stored before this leaves
      | <-- Success (session, proxy, MAC) ------ |
      |                                          |
      | -- SyncFailure (AUTS) -----------------> |   instead of Response; another Challenge follows, once
      | -- Reject -----------------------------> |   instead of Response: the device does not know this network
      | <-- Refusal ---------------------------- |   the same for every reason
      |                                          |
      | -- Detach (session, MAC) --------------> |   later, on a new connection
      | <-- Detached --------------------------- |

A frame is its body's length (2 bytes, big-endian), then the body: one byte of kind and a record's
deterministic CBOR, :data:`FRAME_LIMIT` bytes at most. MACs are HMAC-SHA-256 cut to 16 bytes, under K_aut
while attaching and under the MSK afterwards; each covers the messages before it.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Annotated

from firstlight.encoding import Bytes16, Range, Record, Size, Uri, encode
from firstlight.errors import MalformedError
from firstlight.sim import aka_prime
from firstlight.sim.aka_prime import Keys
from firstlight.sim.subscription import NetworkName
from firstlight.sim.suci import Suci

FRAME_LIMIT = 1024
_MAC = 16


@dataclass(frozen=True, slots=True)
class Identity(Record):
    """Who wants in, concealed; the nonce makes the run the device's own."""

    suci: Suci
    nonce: Bytes16


@dataclass(frozen=True, slots=True)
class Challenge(Record):
    """RAND and AUTN, and proof that their maker knows this network's name and the identity."""

    rand: Bytes16
    autn: Bytes16
    network: NetworkName
    mac: Bytes16


@dataclass(frozen=True, slots=True)
class Response(Record):
    """RES, and proof that it answers this challenge."""

    res: Annotated[bytes, Size(4, 16)] = field(repr=False)
    mac: Bytes16


@dataclass(frozen=True, slots=True)
class SyncFailure(Record):
    """AUTS: the sequence number was not acceptable."""

    auts: Annotated[bytes, Size(14)]


@dataclass(frozen=True, slots=True)
class Reject(Record):
    """The device does not take this network for its own."""


@dataclass(frozen=True, slots=True)
class Success(Record):
    """The port is open: the session, where its forwarder listens, for how many seconds."""

    session: Bytes16
    proxy: Uri
    lifetime: Annotated[int, Range(1, 2**32 - 1)]
    mac: Bytes16


@dataclass(frozen=True, slots=True)
class Refusal(Record):
    """The port stays shut; the reason stays with the operator."""


@dataclass(frozen=True, slots=True)
class Detach(Record):
    """The device leaves."""

    session: Bytes16
    mac: Bytes16


@dataclass(frozen=True, slots=True)
class Detached(Record):
    """The answer to every :class:`Detach`, whether there was such a session or not."""


Message = Identity | Challenge | Response | SyncFailure | Reject | Success | Refusal | Detach | Detached
_KINDS: tuple[type[Message], ...] = (
    Identity,
    Challenge,
    Response,
    SyncFailure,
    Reject,
    Success,
    Refusal,
    Detach,
    Detached,
)


def frame(message: Message) -> bytes:
    """Return a message as a frame, its length in front."""
    body = bytes([_KINDS.index(type(message)) + 1]) + message.encode()
    return len(body).to_bytes(2) + body


def body_size(prefix: bytes) -> int:
    """Return the length of the body that follows a 2-byte prefix; :class:`MalformedError` (``bad-frame``)."""
    size = int.from_bytes(prefix)
    if not 2 <= size <= FRAME_LIMIT:
        raise MalformedError("bad-frame", f"a frame of {size} bytes")
    return size


def parse(body: bytes) -> Message:
    """Return the message in a frame's body; :class:`MalformedError` (``bad-frame``, or a record's own codes)."""
    if not 2 <= len(body) <= FRAME_LIMIT or not 1 <= body[0] <= len(_KINDS):
        raise MalformedError("bad-frame", "unknown kind or wrong length")
    return _KINDS[body[0] - 1].decode(body[1:])


def session_keys(imsi: str, network: str, autn: bytes, ck: bytes, ik: bytes) -> Keys:
    """Return the AKA' keys of one run; the identity is the IMSI's digits, the name is that in the challenge."""
    ck_prime, ik_prime = aka_prime.ck_ik_prime(ck, ik, network.encode("ascii"), autn)
    return aka_prime.derive_keys(imsi.encode("ascii"), ck_prime, ik_prime)


def challenge_mac(k_aut: bytes, identity: Identity, rand: bytes, autn: bytes, network: str) -> bytes:
    """Return the MAC in a :class:`Challenge`."""
    digest = hashlib.sha256(identity.encode()).digest()
    return _mac(k_aut, "firstlight-attach-challenge-1", digest, rand, autn, network)


def response_mac(k_aut: bytes, challenge: Challenge, res: bytes) -> bytes:
    """Return the MAC in a :class:`Response`."""
    return _mac(k_aut, "firstlight-attach-response-1", challenge.mac, res)


def success_mac(k_aut: bytes, response: Response, session: bytes, proxy: str, lifetime: int) -> bytes:
    """Return the MAC in a :class:`Success`."""
    return _mac(k_aut, "firstlight-attach-success-1", response.mac, session, proxy, lifetime)


def detach_mac(msk: bytes, session: bytes) -> bytes:
    """Return the MAC in a :class:`Detach`."""
    return _mac(msk, "firstlight-attach-detach-1", session)


def session_proof(msk: bytes, session: bytes) -> str:
    """Return what opens the forwarder for a session: 64 hexadecimal digits."""
    return hmac.digest(msk, encode(["firstlight-attach-proof-1", session]), hashlib.sha256).hex()


def _mac(key: bytes, *items: object) -> bytes:
    return hmac.digest(key, encode(list(items)), hashlib.sha256)[:_MAC]
