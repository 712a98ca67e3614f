"""The JSON forms of CometBFT's RPC, read strictly, for the light client.

64-bit numbers are decimal strings and smaller ones are numbers, hashes and addresses are upper-case hexadecimal, keys
and signatures padded base64, times RFC 3339 with up to nine digits of a second. A field that is ``null`` is its zero
value, as in Go; a vote of nobody has the time of year one. Members that are not named here are passed over, as CometBFT
passes over them (a set's ``proposer``, a validator's ``proposer_priority``); a member twice is refused.

tendermint-rs writes the same with small differences, which are read as well: a vote of nobody has the Unix epoch for
its time, ``parts`` is called ``part_set_header``, and the validators of a set may stand in any order: it has only one.

What cannot be read at all raises; what can be read and is wrong (a hash of 31 bytes, less than no power) is for the
verdict.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NoReturn, TypeVar

from firstlight.chain.block import BlockId, Header
from firstlight.chain.commit import Commit, CommitSig, Flag, Validator, ValidatorSet
from firstlight.chain.light import SECOND, Invalid, Policy, SignedHeader, Trusted, Verdict, verify
from firstlight.errors import MalformedError

MAX_INPUT = 64 * 2**20
MAX_DEPTH = 32
MAX_ENTRIES = 10_000
"""Validators or votes; CometBFT's own limit."""
KEY_TYPE = "tendermint/PubKeyEd25519"
NEVER = -62_135_596_800 * SECOND
"""Unix nanoseconds of 0001-01-01T00:00:00Z: a time that was never set."""

_T = TypeVar("_T")
_HEX = re.compile(r"(?:[0-9A-F]{2})*", re.ASCII)
_DECIMAL = re.compile(r"0|-?[1-9][0-9]{0,18}", re.ASCII)
_LEVEL = re.compile(r"([0-9]{1,18})/([0-9]{1,18})", re.ASCII)
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_SECONDS = 10**9


@dataclass(frozen=True, slots=True)
class Question:
    """All that a verdict depends on. ``now`` is in Unix nanoseconds.

    ``fault`` says what is wrong with the untrusted block beyond what the light client's own types can hold.
    """

    trusted: Trusted
    untrusted: SignedHeader
    policy: Policy
    now: int
    fault: str = ""

    def verdict(self) -> Verdict:
        """Return the verdict: ``bad-validators`` if an address is not its key's, else that of :func:`light.verify`."""
        if self.fault:
            return Invalid("bad-validators", self.fault)
        return verify(self.trusted, self.untrusted, self.policy, self.now)


@dataclass(frozen=True, slots=True)
class SignedCommit:
    """A header and its commit; ``addresses`` are those beside its entries."""

    header: Header
    commit: Commit
    addresses: tuple[bytes, ...]


def parse_question(data: bytes) -> Question:
    """Read ``{"trusted", "untrusted", "trust_level", "trusting_period_s", "max_clock_drift_s", "now"}``.

    ``trusted`` has ``signed_header`` and ``next_validator_set``; ``untrusted`` has ``signed_header``,
    ``validator_set`` and, if wished, ``next_validator_set``. Of the trusted header only the header is read. Seconds are
    numbers with up to nine decimals. Raises :class:`MalformedError`: ``too-large``, ``not-json``, ``duplicate-member``,
    ``bad-form`` (with the path of what is not of the form), ``key-type``; :class:`ProofError` (``bad-trust-level``).
    """
    top = _object(_load(data), "")
    trusted = _member(top, "trusted", "", _object)
    untrusted = _member(top, "untrusted", "", _object)
    policy = Policy(
        _member(top, "trusting_period_s", "", _seconds),
        _member(top, "max_clock_drift_s", "", _seconds),
        _member(top, "trust_level", "", _trust_level),
    )
    known = _member(trusted, "signed_header", "trusted", _object)
    header = _member(known, "header", "trusted.signed_header", _header)
    named, _ = _member(trusted, "next_validator_set", "trusted", _validator_set)
    block, fault = _signed_header(untrusted)
    return Question(Trusted(header, named), block, policy, _member(top, "now", "", _time), fault)


def parse_commit(data: bytes) -> SignedCommit:
    """Read the answer of ``/commit``: ``{"result": {"signed_header"}}``.

    Raises :class:`MalformedError` as :func:`parse_question`; ``rpc-error`` if it is an error.
    """
    signed = _member(_result(data), "signed_header", "result", _object)
    header = _member(signed, "header", "result.signed_header", _header)
    commit, addresses = _member(signed, "commit", "result.signed_header", _commit)
    return SignedCommit(header, commit, addresses)


def parse_validators(data: bytes) -> tuple[list[Validator], int]:
    """Read a page of ``/validators``: ``{"result": {"validators", "total"}}``; how many there are in all is ``total``.

    Raises :class:`MalformedError` as :func:`parse_commit`, and ``bad-form`` for an address that is not its key's.
    """
    result = _result(data)
    listed = _list(result, "validators", "result", _validator)
    for index, (validator, address) in enumerate(listed):
        if validator.address != address:
            _fail(f"result.validators[{index}].address", "not that of its key")
    return [validator for validator, _ in listed], _member(result, "total", "result", _int64)


def parse_result(data: bytes) -> Mapping[str, Any]:
    """Read any answer and return its result; errors as :func:`parse_commit`."""
    return _result(data)


def _result(data: bytes) -> Mapping[str, Any]:
    top = _object(_load(data), "")
    error = top.get("error")
    if error is not None:
        fields = _object(error, "error")
        detail = fields.get("data") or fields.get("message") or ""
        raise MalformedError("rpc-error", str(detail)[:400])
    return _member(top, "result", "", _object)


def _signed_header(block: Mapping[str, Any]) -> tuple[SignedHeader, str]:
    path = "untrusted"
    signed = _member(block, "signed_header", path, _object)
    header = _member(signed, "header", f"{path}.signed_header", _header)
    commit, addresses = _member(signed, "commit", f"{path}.signed_header", _commit)
    validators, fault = _member(block, "validator_set", path, _validator_set)
    following = None
    if block.get("next_validator_set") is not None:
        following, _ = _member(block, "next_validator_set", path, _validator_set)
    return SignedHeader(header, commit, validators, addresses, following), fault


def _header(value: Any, path: str) -> Header:
    fields = _object(value, path)
    version = _member(fields, "version", path, _object)

    def digest(name: str) -> bytes:
        return _member(fields, name, path, _hex)

    return Header(
        block_version=_member(version, "block", f"{path}.version", _uint64),
        app_version=_optional(version, "app", f"{path}.version", _uint64) or 0,
        chain=_member(fields, "chain_id", path, _text),
        height=_member(fields, "height", path, _int64),
        time=_member(fields, "time", path, _time),
        last_block=_optional(fields, "last_block_id", path, _block_id),
        last_commit_hash=digest("last_commit_hash"),
        data_hash=digest("data_hash"),
        validators_hash=digest("validators_hash"),
        next_validators_hash=digest("next_validators_hash"),
        consensus_hash=digest("consensus_hash"),
        app_hash=digest("app_hash"),
        last_results_hash=digest("last_results_hash"),
        evidence_hash=digest("evidence_hash"),
        proposer=digest("proposer_address"),
    )


def _block_id(value: Any, path: str) -> BlockId | None:
    """Return the id, or nothing for that of no block. Its parts are called by either name in use."""
    fields = _object(value, path)
    names = [name for name in ("parts", "part_set_header") if name in fields]
    if len(names) != 1:
        _fail(path, "one of parts, part_set_header is needed")
    parts = _member(fields, names[0], path, _object)
    path_of_parts = f"{path}.{names[0]}"
    total = _member(parts, "total", path_of_parts, _uint32)
    found = BlockId(_member(fields, "hash", path, _hex), total, _member(parts, "hash", path_of_parts, _hex))
    return found if found.hash or found.parts or found.parts_hash else None


def _commit(value: Any, path: str) -> tuple[Commit, tuple[bytes, ...]]:
    fields = _object(value, path)
    entries = _list(fields, "signatures", path, _commit_sig)
    block = _member(fields, "block_id", path, _block_id) or BlockId(b"", 0, b"")
    commit = Commit(
        height=_member(fields, "height", path, _int64),
        round=_member(fields, "round", path, _int32),
        block=block,
        signatures=tuple(entry for entry, _ in entries),
    )
    return commit, tuple(address for _, address in entries)


def _commit_sig(value: Any, path: str) -> tuple[CommitSig, bytes]:
    fields = _object(value, path)
    number = _member(fields, "block_id_flag", path, _uint32)
    if number not in {flag.value for flag in Flag}:
        _fail(f"{path}.block_id_flag", "none of 1, 2, 3")
    flag = Flag(number)
    time = _optional(fields, "timestamp", path, _time)
    time = NEVER if time is None else time
    if flag is Flag.ABSENT:
        time = 0 if time in (NEVER, 0) else 1  # all that counts is whether it was ever set
    signature = _optional(fields, "signature", path, _base64) or b""
    return CommitSig(flag, time, signature), _optional(fields, "validator_address", path, _hex) or b""


def _validator_set(value: Any, path: str) -> tuple[ValidatorSet, str]:
    """Return the validators, and what is wrong with their addresses."""
    listed = _list(_object(value, path), "validators", path, _validator)
    wrong = [index for index, (validator, address) in enumerate(listed) if validator.address != address]
    fault = f"the address of {path}.validators[{wrong[0]}] is not its key's" if wrong else ""
    return ValidatorSet.ordered(validator for validator, _ in listed), fault


def _validator(value: Any, path: str) -> tuple[Validator, bytes]:
    fields = _object(value, path)
    key = _member(fields, "pub_key", path, _object)
    kind = _member(key, "type", f"{path}.pub_key", _text)
    if kind != KEY_TYPE:
        raise MalformedError("key-type", f"{path}.pub_key.type: {kind[:40]!r}, not {KEY_TYPE}")
    public = _member(key, "value", f"{path}.pub_key", _base64)
    if len(public) != 32:
        _fail(f"{path}.pub_key.value", "not 32 bytes")
    power = _member(fields, "voting_power", path, _int64)
    return Validator(public, power), _member(fields, "address", path, _hex)


def _load(data: bytes) -> Any:
    if len(data) > MAX_INPUT:
        raise MalformedError("too-large", f"{len(data)} bytes, at most {MAX_INPUT}")
    try:
        text = data.decode()
        _check_depth(text)
        return json.loads(text, object_pairs_hook=_once, parse_float=Decimal, parse_constant=_no_constant)
    except (ValueError, ArithmeticError) as error:
        raise MalformedError("not-json", str(error)) from error


def _check_depth(text: str) -> None:
    depth = 0
    for bracket in re.findall(r'"(?:[^"\\]|\\.)*"?|[\[\]{}]', text):
        depth += (bracket in "[{") - (bracket in "]}")
        if depth > MAX_DEPTH:
            raise MalformedError("not-json", f"nested more than {MAX_DEPTH} deep")


def _no_constant(name: str) -> NoReturn:
    raise MalformedError("not-json", f"{name} is no JSON")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise MalformedError("duplicate-member", "an object with a member twice")
    return found


def _fail(path: str, what: str) -> NoReturn:
    raise MalformedError("bad-form", f"{path}: {what}")


def _member(fields: Mapping[str, Any], name: str, path: str, read: Callable[[Any, str], _T]) -> _T:
    inner = f"{path}.{name}" if path else name
    if name not in fields:
        _fail(inner, "missing")
    return read(fields[name], inner)


def _optional(fields: Mapping[str, Any], name: str, path: str, read: Callable[[Any, str], _T]) -> _T | None:
    return None if fields.get(name) is None else _member(fields, name, path, read)


def _list(fields: Mapping[str, Any], name: str, path: str, read: Callable[[Any, str], _T]) -> list[_T]:
    items = _member(fields, name, path, lambda value, _: [] if value is None else value)
    if not isinstance(items, list) or len(items) > MAX_ENTRIES:
        _fail(f"{path}.{name}", f"not a list of at most {MAX_ENTRIES}")
    return [read(item, f"{path}.{name}[{index}]") for index, item in enumerate(items)]


def _object(value: Any, path: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        _fail(path or "the input", "not an object")
    return value


def _text(value: Any, path: str) -> str:
    if not isinstance(value, str):
        _fail(path, "not a string")
    if any("\ud800" <= character <= "\udfff" for character in value):
        _fail(path, "not Unicode")
    return value


def _hex(value: Any, path: str) -> bytes:
    text = "" if value is None else _text(value, path)
    if not _HEX.fullmatch(text):
        _fail(path, "not upper-case hexadecimal")
    return bytes.fromhex(text)


def _base64(value: Any, path: str) -> bytes:
    text = _text(value, path)
    try:
        data = base64.b64decode(text.encode(), validate=True)
    except binascii.Error:
        _fail(path, "not padded base64")
    if base64.b64encode(data).decode() != text:
        _fail(path, "not padded base64")
    return data


def _decimal(value: Any, path: str, low: int, high: int) -> int:
    text = _text(value, path)
    if not _DECIMAL.fullmatch(text) or not low <= int(text) <= high:
        _fail(path, f"not a decimal string from {low} to {high}")
    return int(text)


def _int64(value: Any, path: str) -> int:
    return _decimal(value, path, -(2**63), 2**63 - 1)


def _uint64(value: Any, path: str) -> int:
    return _decimal(value, path, 0, 2**63 - 1)


def _small(value: Any, path: str, high: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= high:
        _fail(path, f"not a number from 0 to {high}")
    return value


def _uint32(value: Any, path: str) -> int:
    return _small(value, path, 2**32 - 1)


def _int32(value: Any, path: str) -> int:
    return _small(value, path, 2**31 - 1)


def _seconds(value: Any, path: str) -> int:
    """Return nanoseconds."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal) or not 0 <= value <= _MAX_SECONDS:
        _fail(path, f"not a number of seconds from 0 to {_MAX_SECONDS}")
    if isinstance(value, int) or not value:
        return int(value) * SECOND
    _, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int) or exponent < -9:
        _fail(path, "finer than a nanosecond")
    return int("".join(map(str, digits)) + "0" * (exponent + 9))


def _trust_level(value: Any, path: str) -> tuple[int, int]:
    found = _LEVEL.fullmatch(_text(value, path))
    if found is None:
        _fail(path, "not a fraction such as 1/3")
    return int(found[1]), int(found[2])


def _time(value: Any, path: str) -> int:
    """Return Unix nanoseconds of an RFC 3339 time."""
    found = _TIME.fullmatch(_text(value, path))
    if found is None:
        _fail(path, "not a time of RFC 3339")
    try:
        moment = datetime.fromisoformat(found[1] + found[3].replace("Z", "+00:00"))
        since = moment - _EPOCH
    except (ValueError, OverflowError):
        _fail(path, "no such time")
    return (since.days * 86_400 + since.seconds) * SECOND + int((found[2] or "").ljust(9, "0"))
