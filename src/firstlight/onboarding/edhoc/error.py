"""EDHOC error messages (RFC 9528 §6): never authenticated, so a receiver backs off and does nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from firstlight.encoding import decode_sequence, encode_sequence
from firstlight.errors import MalformedError

UNSPECIFIED = 1
WRONG_SUITE = 2
UNKNOWN_CREDENTIAL = 3
MAX_ERROR = 512


@dataclass(frozen=True, slots=True)
class ErrorMessage:
    """ERR_CODE with what its ERR_INFO holds: a text for 1, the responder's suites for 2, nothing for 3."""

    code: int
    text: str = ""
    suites: tuple[int, ...] = ()

    def encode(self) -> bytes:
        """Return the error message."""
        if self.code == WRONG_SUITE:
            return encode_sequence(self.code, _suites_info(self.suites))
        return encode_sequence(self.code, True if self.code == UNKNOWN_CREDENTIAL else self.text)


def _suites_info(suites: Sequence[int]) -> object:
    return suites[0] if len(suites) == 1 else list(suites)


def is_error(data: bytes) -> bool:
    """Tell whether bytes start as an error message does: with an integer, where every other message has a string."""
    return bool(data) and data[0] < 0x40


def parse_error(data: bytes) -> ErrorMessage:
    """Parse an error message strictly; :class:`MalformedError`."""
    values = decode_sequence(data, items=2, limit=MAX_ERROR)
    match values:
        case [int(code), str(text)] if code == UNSPECIFIED and type(code) is int:
            return ErrorMessage(code, text=text)
        case [int(code), bool(info)] if code == UNKNOWN_CREDENTIAL and type(code) is int and info:
            return ErrorMessage(code)
        case [int(code), int(suite)] if code == WRONG_SUITE and type(code) is int and type(suite) is int:
            return ErrorMessage(code, suites=(suite,))
        case [int(code), list(suites)] if code == WRONG_SUITE and _are_suites(suites):
            return ErrorMessage(code, suites=tuple(suites))
    raise MalformedError("wrong-shape", "not an EDHOC error message")


def _are_suites(values: Sequence[object]) -> bool:
    return 2 <= len(values) <= 16 and all(type(value) is int for value in values)
