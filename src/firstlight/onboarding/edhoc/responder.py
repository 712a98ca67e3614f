"""The responder of EDHOC method 3 (RFC 9528 §5).

In order: :func:`read_1`, :func:`make_2`, :func:`read_3`, :meth:`Unverified.verify`, ``Session.message_4``.

Each step takes frozen values and returns frozen values. Between message 2 and message 3 all state is in
:class:`HalfOpen`, a record that the caller may seal and hand away.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from firstlight.encoding import Bytes32, Range, Record, encode_bytes
from firstlight.errors import ExchangeError, MalformedError
from firstlight.onboarding.edhoc import keys
from firstlight.onboarding.edhoc.keys import SUITES, Ead, Ephemeral, Secret, Session, Suite

MAX_MESSAGE_1 = 1_024
MAX_MESSAGE_3 = 4_096
MAX_KID = 32
MAX_SUITES = 8


@dataclass(frozen=True, slots=True)
class Hello:
    """A message 1 that this responder can answer; its G_X is on the curve as soon as :func:`make_2` returns."""

    message_1: bytes
    suite: Suite
    g_x: bytes
    c_i: bytes
    ead_1: tuple[Ead, ...]


@dataclass(frozen=True, slots=True)
class HalfOpen(Record):
    """What a responder must keep between message 2 and message 3: suite, y, TH_3, PRK_3e2m. Secret."""

    LIMIT: ClassVar[int] = 256

    suite: Annotated[int, Range(2, 3)]
    y: Bytes32 = field(repr=False)
    th_3: Bytes32
    prk_3e2m: Bytes32 = field(repr=False)


@dataclass(frozen=True, slots=True)
class Unverified:
    """A decrypted message 3: ID_CRED_I and EAD_3 are not authenticated yet."""

    suite: Suite
    th_3: bytes
    kid_i: bytes
    ead_3: tuple[Ead, ...]
    mac: bytes
    plaintext: bytes = field(repr=False)
    ephemeral: Ephemeral = field(repr=False)
    prk_3e2m: bytes = field(repr=False)

    def verify(self, cred_i: bytes, g_i: bytes) -> Session:
        """Check MAC_3 with the initiator's credential and its static key (x-coordinate, or x ‖ y).

        Raises :class:`ExchangeError` (``bad-mac``), :class:`MalformedError` (``bad-point``).
        """
        salt = keys.kdf(self.prk_3e2m, keys.SALT_4E3M, self.th_3, keys.HASH_LENGTH)
        prk_4e3m = keys.extract(salt, self.ephemeral.exchange(g_i))
        context = keys.id_cred(self.kid_i) + encode_bytes(self.th_3) + cred_i + keys.encode_ead(self.ead_3)
        keys.check_mac(self.mac, keys.kdf(prk_4e3m, keys.MAC_3, context, self.suite.mac))
        return Session.derive(self.suite, self.th_3, self.plaintext, cred_i, prk_4e3m)


def read_1(message_1: bytes, *, suites: Collection[int] = (2, 3)) -> Hello:
    """Parse message 1 (RFC 9528 §5.2.3).

    1. The method is 3 (``wrong-method``); 2. the selected suite is among ``suites``, and none that the initiator
    prefers to it is (``wrong-suite``). Raises :class:`ExchangeError`, :class:`MalformedError`.
    """
    method, offered, g_x, c_i, *ead = keys.parts(message_1, 4, keys.MAX_ITEMS, MAX_MESSAGE_1)
    if type(method) is not int:
        raise MalformedError("wrong-shape", "the method is not an integer")
    if method != keys.METHOD:
        raise ExchangeError("wrong-method", f"method {method}, not 3")
    *preferred, selected = _suites(offered)
    if selected not in suites or selected not in SUITES or any(number in suites for number in preferred):
        raise ExchangeError("wrong-suite", f"suites {offered}")
    return Hello(
        message_1=message_1,
        suite=SUITES[selected],
        g_x=keys.as_bytes(g_x),
        c_i=keys.parse_identifier(c_i, limit=16),
        ead_1=keys.parse_ead(ead),
    )


def _suites(offered: Any) -> list[int]:
    """Return SUITES_I as a list: one integer, or an array of two and more (RFC 9528 §5.2.1)."""
    if type(offered) is int:
        return [offered]
    if type(offered) is list and 2 <= len(offered) <= MAX_SUITES and all(type(one) is int for one in offered):
        return offered
    raise MalformedError("wrong-shape", "SUITES_I is not a suite or a list of them")


def make_2(
    hello: Hello,
    *,
    ephemeral: Ephemeral,
    static: Secret,
    kid_r: bytes,
    cred_r: bytes,
    c_r: bytes,
    ead_2: Sequence[Ead] = (),
) -> tuple[bytes, HalfOpen]:
    """Make message 2 (RFC 9528 §5.3.2) and the state that message 3 needs; ``bad-point`` if G_X is off the curve."""
    suite, g_y = hello.suite, ephemeral.x
    th_2 = keys.th_2(hello.message_1, g_y)
    prk_2e = keys.extract(th_2, ephemeral.exchange(hello.g_x))
    salt = keys.kdf(prk_2e, keys.SALT_3E2M, th_2, keys.HASH_LENGTH)
    prk_3e2m = keys.extract(salt, static.exchange(hello.g_x))
    ead, identifier = keys.encode_ead(ead_2), keys.encode_identifier(c_r)
    context = identifier + keys.id_cred(kid_r) + encode_bytes(th_2) + cred_r + ead
    mac = keys.kdf(prk_3e2m, keys.MAC_2, context, suite.mac)
    plaintext = identifier + keys.encode_identifier(kid_r) + encode_bytes(mac) + ead
    ciphertext = keys.xor(plaintext, keys.kdf(prk_2e, keys.KEYSTREAM_2, th_2, len(plaintext)))
    th_3 = keys.transcript(encode_bytes(th_2), plaintext, cred_r)
    return encode_bytes(g_y + ciphertext), HalfOpen(suite.number, ephemeral.secret, th_3, prk_3e2m)


def read_3(
    half: HalfOpen, message_3: bytes, *, again: Callable[[bytes], Ephemeral] = Ephemeral.from_secret
) -> Unverified:
    """Decrypt message 3 (RFC 9528 §5.4.3) so that the credential in it can be found.

    ``again`` returns the ephemeral key of y.

    Raises :class:`ExchangeError` (``bad-ciphertext``), :class:`MalformedError`.
    """
    suite = SUITES[half.suite]
    (ciphertext,) = keys.parts(message_3, 1, 1, MAX_MESSAGE_3)
    plaintext = keys.unseal(suite, half.prk_3e2m, (keys.K_3, keys.IV_3), half.th_3, keys.as_bytes(ciphertext))
    kid_i, mac, *ead = keys.parts(plaintext, 2, keys.MAX_ITEMS, MAX_MESSAGE_3)
    return Unverified(
        suite=suite,
        th_3=half.th_3,
        kid_i=keys.parse_identifier(kid_i, limit=MAX_KID),
        ead_3=keys.parse_ead(ead),
        mac=keys.as_bytes(mac),
        plaintext=plaintext,
        ephemeral=again(half.y),
        prk_3e2m=half.prk_3e2m,
    )
