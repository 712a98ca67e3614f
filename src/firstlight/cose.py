"""COSE_Sign1 and COSE_Sign (RFC 9052 §4) with ES256, untagged, nothing in the unprotected header.

Every signed object names its type in its protected header (``typ``, RFC 9596), and a verifier names
the type that it expects, so that no signature serves twice. The protected header of a signature is
exactly ``{1: -7, 4: kid, 16: typ}`` for COSE_Sign1; in a COSE_Sign the body carries ``{16: typ}`` and
each signature ``{1: -7, 4: kid}``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from firstlight import p256
from firstlight.encoding import DEFAULT_LIMIT, decode, encode, encode_byte_strings, plain_sequence
from firstlight.errors import MalformedError, SignatureError
from firstlight.ports import Signer

ES256 = -7
ALG, KID, TYP = 1, 4, 16
KID_SIZE = 8
MAX_SIGNATURES = 32
_ARRAY_OF_4, _EMPTY_MAP = b"\x84", b"\xa0"
_SIGNATURE1 = _ARRAY_OF_4 + encode("Signature1")
_HEADER_AT = 3
"""Where the protected header begins in a COSE_Sign1: after the array's head and its own, of two bytes."""


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature: its protected header, the kid in it, and r ‖ s."""

    protected: bytes
    kid: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class Signed:
    """A parsed COSE_Sign1 or COSE_Sign: not verified yet.

    ``body`` is the body's protected header, ``many`` says which of the two forms it is in.
    """

    body: bytes
    typ: str
    payload: bytes
    signatures: tuple[Signature, ...]
    many: bool

    @property
    def id(self) -> bytes:
        """SHA-256 of the deterministic CBOR array [body protected header, payload]."""
        return hashlib.sha256(encode([self.body, self.payload])).digest()

    def verify(self, keys: Mapping[bytes, bytes], *, aad: bytes = b"") -> None:
        """Check every signature with ``keys`` (kid to compressed key).

        Raises :class:`SignatureError`: ``unknown-key`` (a kid that is not in ``keys``), ``bad-signature``.
        """
        for signature in self.signatures:
            if signature.kid not in keys:
                raise SignatureError("unknown-key", f"no key with kid {signature.kid.hex()}")
            message = _to_be_signed(self, signature.protected, aad)
            p256.verify(keys[signature.kid], message, signature.value)

    def cosigned(self, signer: Signer, *, aad: bytes = b"") -> Signed:
        """Return a COSE_Sign with one more signature, by ``signer``.

        Raises :class:`MalformedError` (``not-cose``) for a COSE_Sign1, ``signed-twice`` for a key that signed already.
        """
        kid = p256.kid(signer.public)
        if not self.many:
            raise MalformedError("not-cose", "a COSE_Sign1 has one signature")
        if kid in {one.kid for one in self.signatures}:
            raise MalformedError("signed-twice", "this key has signed already")
        protected = encode({ALG: ES256, KID: kid})
        value = signer.sign(_to_be_signed(self, protected, aad))
        signatures = sorted((*self.signatures, Signature(protected, kid, value)), key=lambda one: one.kid)
        return replace(self, signatures=tuple(signatures))

    def encode(self) -> bytes:
        """Return the bytes of the object."""
        if not self.many:
            return encode([self.body, {}, self.payload, self.signatures[0].value])
        signatures = [[one.protected, {}, one.value] for one in self.signatures]
        return encode([self.body, {}, self.payload, signatures])


def _to_be_signed(signed: Signed, protected: bytes, aad: bytes) -> bytes:
    if signed.many:
        return encode(["Signature", signed.body, protected, aad, signed.payload])
    return _signature1(signed.body, aad, signed.payload)


def _signature1(body: bytes, aad: bytes, payload: bytes) -> bytes:
    """Return the Sig_structure of a COSE_Sign1 (RFC 9052 §4.4)."""
    return _SIGNATURE1 + encode_byte_strings(body, aad, payload)


def sign1(payload: bytes, *, typ: str, signer: Signer, aad: bytes = b"") -> bytes:
    """Return the COSE_Sign1 of ``payload`` as type ``typ`` by ``signer``."""
    kid = p256.kid(signer.public)
    body = encode({ALG: ES256, KID: kid, TYP: typ})
    value = signer.sign(_signature1(body, aad, payload))
    return encode([body, {}, payload, value])


def sign(payload: bytes, *, typ: str, signers: Sequence[Signer], aad: bytes = b"") -> bytes:
    """Return the COSE_Sign of ``payload`` as type ``typ`` by all ``signers``, ordered by kid."""
    body = encode({TYP: typ})
    parts = []
    for signer in sorted(signers, key=lambda one: p256.kid(one.public)):
        protected = encode({ALG: ES256, KID: p256.kid(signer.public)})
        value = signer.sign(encode(["Signature", body, protected, aad, payload]))
        parts.append([protected, {}, value])
    return encode([body, {}, payload, parts])


def parse(data: bytes, *, typ: str, limit: int = DEFAULT_LIMIT) -> Signed:
    """Parse a COSE_Sign1 or COSE_Sign that must be of type ``typ``; no signature is checked.

    Raises :class:`MalformedError`: ``too-large``, ``not-cbor``, ``not-canonical``, ``not-cose``, ``wrong-type``,
    ``wrong-algorithm``.
    """
    plain = _parse1(data, typ) if len(data) <= limit else None
    if plain is not None:
        return plain
    value = decode(data, limit=limit)
    if type(value) is not list or len(value) != 4:
        raise MalformedError("not-cose", "not an array of four")
    body, unprotected, payload, rest = value
    if type(body) is not bytes or unprotected != {} or type(payload) is not bytes:
        raise MalformedError("not-cose", "wrong header or payload")
    many = type(rest) is list
    signatures = _signatures(rest) if many else (Signature(body, b"", _signature_bytes(rest)),)
    header = _header(body, {TYP} if many else {ALG, KID, TYP})
    if header[TYP] != typ:
        raise MalformedError("wrong-type", f"typ is not {typ}")
    if not many:
        signatures = (Signature(body, header[KID], signatures[0].value),)
    return Signed(body, typ, payload, signatures, many)


def _parse1(data: bytes, typ: str) -> Signed | None:
    """Return the COSE_Sign1 of this type that ``data`` is, None for all else, of which :func:`parse` says what it is.

    The bytes of such an object are the same but for kid, payload and signature, and are compared as they are.
    """
    before, after = _sign1_of(typ)
    kid, rest = len(before), len(before) + KID_SIZE + len(after)
    if not data.startswith(before) or not data.startswith(after, kid + KID_SIZE):
        return None
    values = plain_sequence(data[rest:])
    if values is None or len(values) != 2:
        return None
    payload, value = values
    if type(payload) is not bytes or type(value) is not bytes or len(value) != 64:
        return None
    body = data[_HEADER_AT : rest - len(_EMPTY_MAP)]
    return Signed(body, typ, payload, (Signature(body, data[kid : kid + KID_SIZE], value),), many=False)


@lru_cache(maxsize=64)
def _sign1_of(typ: str) -> tuple[bytes, bytes]:
    """Return what a COSE_Sign1 of this type begins with, before and after its kid: array, header, empty map."""
    header = encode({ALG: ES256, KID: bytes(KID_SIZE), TYP: typ})
    before, _, after = encode([header, {}]).partition(bytes(KID_SIZE))
    return _ARRAY_OF_4 + before[1:], after


def open1(data: bytes, *, typ: str, key: bytes, aad: bytes = b"", limit: int = DEFAULT_LIMIT) -> bytes:
    """Return the payload of a COSE_Sign1 by ``key`` (compressed); errors as :func:`parse` and :meth:`Signed.verify`."""
    signed = parse(data, typ=typ, limit=limit)
    if signed.many:
        raise MalformedError("not-cose", "a COSE_Sign where a COSE_Sign1 is expected")
    signed.verify({p256.kid(key): key}, aad=aad)
    return signed.payload


def _signature_bytes(value: object) -> bytes:
    if type(value) is not bytes or len(value) != 64:
        raise MalformedError("not-cose", "a signature is not 64 bytes")
    return value


def _signatures(rest: list[object]) -> tuple[Signature, ...]:
    if not 1 <= len(rest) <= MAX_SIGNATURES:
        raise MalformedError("not-cose", f"not 1 to {MAX_SIGNATURES} signatures")
    found = []
    for entry in rest:
        if type(entry) is not list or len(entry) != 3 or type(entry[0]) is not bytes or entry[1] != {}:
            raise MalformedError("not-cose", "a signature is not [protected, {}, bytes]")
        header = _header(entry[0], {ALG, KID})
        found.append(Signature(entry[0], header[KID], _signature_bytes(entry[2])))
    kids = [one.kid for one in found]
    if kids != sorted(set(kids)):
        raise MalformedError("not-cose", "signatures are not in the order of their kids, each once")
    return tuple(found)


def _header(protected: bytes, labels: set[int]) -> dict[int, Any]:
    header = decode(protected, limit=256)
    if type(header) is not dict or set(header) != labels:
        raise MalformedError("not-cose", "protected header does not hold what it must, and that alone")
    if ALG in labels and header[ALG] != ES256:
        raise MalformedError("wrong-algorithm", "alg is not ES256")
    if KID in labels and (type(header[KID]) is not bytes or len(header[KID]) != 8):
        raise MalformedError("not-cose", "kid is not 8 bytes")
    return header
