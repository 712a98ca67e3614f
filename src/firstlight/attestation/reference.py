"""Reference values: a signed CoRIM (draft-ietf-rats-corim) with one CoMID of reference-value triples.

    COSE_Sign1 by the issuer's party key, untagged, typ "application/rim+cbor", payload:
    #6.501({                                   corim-map
      0: id,                                   16 bytes, the set's id
      1: [#6.506(bytes .cbor {                 concise-mid-tag
           1: {0: id},                         tag-identity
           4: {0: [[                           reference-triples
             {0: {0: #6.560(hwmodel)}},        environment: class-id
             [{0: component,                   measurement: mkey (text)
               1: {1: #6.553(svn),             mval: at least this security version
                   2: [[1, digest]]}}, …]      mval: SHA-256 (RFC 6920 algorithm 1)
           ]]}})],
      3: #6.32(profile),
      4: {0: #6.1(not before), 1: #6.1(not after)}
    })

The ledger holds the SHA-256 of the whole COSE_Sign1, by which it is fetched from anywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Annotated, Any

from firstlight import cose, p256
from firstlight.attestation.evidence import MAX_COMPONENTS, Measurement
from firstlight.encoding import Bytes16, Count, Record, Seconds, Tagged, decode, encode
from firstlight.errors import MalformedError
from firstlight.ledger.records import Model
from firstlight.ports import Signer

TYP = "application/rim+cbor"
PROFILE = "tag:firstlight.example,2026:corim/1"
MAX_BODY = 8_192
KEPT = 64
"""How many bodies are kept parsed."""
_CORIM, _COMID, _CLASS, _MIN_SVN, _URI, _TIME = 501, 506, 560, 553, 32, 1
_TAGS = (_CORIM, _COMID, _CLASS, _MIN_SVN, _URI, _TIME)
_SHA256 = 1


@dataclass(frozen=True, slots=True)
class ReferenceSet(Record):
    """What the firmware of one hardware model must measure to, between two times (Unix seconds, inclusive).

    In each of ``components`` (ascending by name) ``svn`` is the lowest that will do. As a record it travels
    nowhere: :meth:`corim` is its form on the wire.
    """

    identifier: Bytes16
    model: Model
    components: Annotated[tuple[Measurement, ...], Count(MAX_COMPONENTS, 1)]
    not_before: Seconds
    not_after: Seconds

    def __post_init__(self) -> None:
        """Check order and validity."""
        if any(left.component >= right.component for left, right in pairwise(self.components)):
            raise MalformedError("unsorted-components", "components do not ascend by name")
        if self.not_before > self.not_after:
            raise MalformedError("bad-validity", "the set ends before it begins")

    def corim(self) -> Tagged:
        """Return the tagged CoRIM."""
        measured = [
            {0: one.component, 1: {1: Tagged(_MIN_SVN, one.svn), 2: [[_SHA256, one.digest]]}} for one in self.components
        ]
        comid = {
            1: {0: self.identifier},
            4: {0: [[{0: {0: Tagged(_CLASS, self.model)}}, measured]]},
        }
        return Tagged(
            _CORIM,
            {
                0: self.identifier,
                1: [Tagged(_COMID, encode(comid))],
                3: Tagged(_URI, PROFILE),
                4: {0: Tagged(_TIME, self.not_before), 1: Tagged(_TIME, self.not_after)},
            },
        )


@dataclass(frozen=True, slots=True)
class SignedReference:
    """A parsed body: the set, and the signature that is not verified yet."""

    values: ReferenceSet
    signed: cose.Signed


def sign_reference(values: ReferenceSet, signer: Signer) -> bytes:
    """Return the body of the set: its CoRIM as a COSE_Sign1 by the issuer's party key."""
    return cose.sign1(encode(values.corim()), typ=TYP, signer=signer)


def body_digest(body: bytes) -> bytes:
    """Return the SHA-256 of a body: what the ledger's record holds, and what it is fetched by."""
    return hashlib.sha256(body).digest()


@lru_cache(maxsize=KEPT)
def parse_reference(body: bytes) -> SignedReference:
    """Parse a body strictly; nothing is verified. Raises :class:`MalformedError`."""
    signed = cose.parse(body, typ=TYP, limit=MAX_BODY)
    if signed.many:
        raise MalformedError("not-cose", "a COSE_Sign where a COSE_Sign1 is expected")
    corim = _map(_untag(decode(signed.payload, limit=MAX_BODY, tags=_TAGS), _CORIM), {0, 1, 3, 4})
    if _untag(corim[3], _URI) != PROFILE:
        raise MalformedError("wrong-shape", "the CoRIM is of another profile")
    comid = _comid(_only(corim[1]), corim[0])
    environment, measured = _pair(_only(_map(comid[4], {0})[0]))
    model = _untag(_map(_map(environment, {0})[0], {0})[0], _CLASS)
    validity = _map(corim[4], {0, 1})
    times = [_untag(validity[0], _TIME), _untag(validity[1], _TIME)]
    return SignedReference(ReferenceSet.from_cbor([corim[0], model, _components(measured), *times]), signed)


@lru_cache(maxsize=KEPT)
def verify_reference(body: bytes, key: bytes) -> None:
    """Check that a body is signed by ``key`` (compressed); errors as :func:`parse_reference`, :class:`SignatureError`.

    Thousands of devices name the same set: what held for these bytes and this key holds again.
    """
    parse_reference(body).signed.verify({p256.kid(key): key})


def _comid(tag: Any, identifier: Any) -> dict[int, Any]:
    content = _untag(tag, _COMID)
    if type(content) is not bytes:
        raise MalformedError("wrong-shape", "a CoMID is not a byte string")
    comid = _map(decode(content, limit=MAX_BODY, tags=_TAGS), {1, 4})
    if _map(comid[1], {0})[0] != identifier:
        raise MalformedError("wrong-shape", "CoRIM and CoMID have different ids")
    return comid


def _components(measured: Any) -> list[Any]:
    if type(measured) is not list:
        raise MalformedError("wrong-shape", "measurements are not an array")
    found = []
    for one in measured:
        values = _map(_map(one, {0, 1})[1], {1, 2})
        algorithm, digest = _pair(_only(values[2]))
        if type(algorithm) is not int or algorithm != _SHA256:
            raise MalformedError("wrong-algorithm", "a digest is not SHA-256")
        found.append([one[0], digest, _untag(values[1], _MIN_SVN)])
    return found


def _untag(value: Any, number: int) -> Any:
    if type(value) is not Tagged or value.number != number:
        raise MalformedError("wrong-shape", f"tag {number} is not where it must be")
    return value.value


def _map(value: Any, keys: set[int]) -> dict[int, Any]:
    if type(value) is not dict or set(value) != keys:
        raise MalformedError("wrong-shape", f"not a map of exactly {sorted(keys)}")
    return value


def _only(value: Any) -> Any:
    return _items(value, 1)[0]


def _pair(value: Any) -> Sequence[Any]:
    return _items(value, 2)


def _items(value: Any, count: int) -> list[Any]:
    if type(value) is not list or len(value) != count:
        raise MalformedError("wrong-shape", f"not an array of {count}")
    return value
