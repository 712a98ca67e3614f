"""The initiator of EDHOC method 3 (RFC 9528 §5).

In order: :func:`start`, :func:`read_2`, :meth:`Unverified.verify`, :func:`make_3`, ``Session.open_4``.

Each step takes frozen values and returns frozen values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from firstlight.encoding import encode, encode_sequence
from firstlight.errors import ExchangeError, MalformedError
from firstlight.onboarding.edhoc import keys
from firstlight.onboarding.edhoc.keys import SUITES, Ead, Ephemeral, Secret, Session, Suite

MAX_MESSAGE_2 = 2_048
MAX_KID = 32


@dataclass(frozen=True, slots=True)
class Started:
    """Message 1 and what is needed to read message 2."""

    message_1: bytes
    suite: Suite
    ephemeral: Ephemeral


@dataclass(frozen=True, slots=True)
class Verified:
    """A message 2 whose MAC holds: the responder has the key of its credential."""

    suite: Suite
    th_3: bytes
    g_y: bytes
    prk_3e2m: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Unverified:
    """A decrypted message 2: nothing in it is authenticated yet."""

    suite: Suite
    ephemeral: Ephemeral
    c_r: bytes
    kid_r: bytes
    ead_2: tuple[Ead, ...]
    g_y: bytes
    th_2: bytes
    mac: bytes
    plaintext: bytes = field(repr=False)
    prk_2e: bytes = field(repr=False)

    def verify(self, cred_r: bytes, g_r: bytes) -> Verified:
        """Check MAC_2 with the responder's credential and the x-coordinate of its static key.

        Raises :class:`firstlight.errors.ExchangeError` (``bad-mac``), :class:`MalformedError` (``bad-point``).
        """
        salt = keys.kdf(self.prk_2e, keys.SALT_3E2M, self.th_2, keys.HASH_LENGTH)
        prk_3e2m = keys.extract(salt, self.ephemeral.exchange(g_r))
        context = (
            keys.encode_identifier(self.c_r)
            + keys.id_cred(self.kid_r)
            + encode(self.th_2)
            + cred_r
            + keys.encode_ead(self.ead_2)
        )
        keys.check_mac(self.mac, keys.kdf(prk_3e2m, keys.MAC_2, context, self.suite.mac))
        th_3 = keys.transcript(encode(self.th_2), self.plaintext, cred_r)
        return Verified(self.suite, th_3, self.g_y, prk_3e2m)


def start(ephemeral: Ephemeral, *, c_i: bytes, suites: Sequence[int] = (2,), ead_1: Sequence[Ead] = ()) -> Started:
    """Make message 1 (RFC 9528 §5.2.2). The last of ``suites`` is selected, those before it are preferred to it."""
    if not suites or suites[-1] not in SUITES:
        raise MalformedError("wrong-suite", f"none of {suites} can be selected")
    offered: object = suites[0] if len(suites) == 1 else list(suites)
    message_1 = (
        encode_sequence(keys.METHOD, offered, ephemeral.x) + keys.encode_identifier(c_i) + keys.encode_ead(ead_1)
    )
    return Started(message_1, SUITES[suites[-1]], ephemeral)


def first_proposal(supported: Sequence[int]) -> tuple[int, ...]:
    """Return SUITES_I of a first message 1: the most preferred of ``supported`` (RFC 9528 §5.2.2)."""
    return tuple(supported[:1])


def next_proposal(supported: Sequence[int], proposed: Sequence[int], offered: Sequence[int]) -> tuple[int, ...]:
    """Return SUITES_I for another try after an error that names the responder's suites (RFC 9528 §6.3).

    The most preferred suite of both is selected, last in the list, after all that are preferred to it in the order of
    ``supported``: so a responder that has one of those sees that somebody lied about it (§5.2.3), and what the list
    says is in TH_2.

    1. There is one (``no-common-suite``); 2. it is none that was proposed and refused before (``suites-contradict``).
    Raises :class:`ExchangeError`.
    """
    selected = next((number for number in supported if number in offered), None)
    if selected is None:
        raise ExchangeError("no-common-suite", f"the peer has {list(offered)}, not one of {list(supported)}")
    if selected in proposed:
        raise ExchangeError("suites-contradict", f"suite {selected} was refused and is offered")
    return tuple(supported[: supported.index(selected) + 1])


def read_2(started: Started, message_2: bytes) -> Unverified:
    """Decrypt message 2 (RFC 9528 §5.3.3) so that the credential in it can be looked up.

    Raises :class:`MalformedError` for what cannot be a message 2: ``bad-point`` for a G_Y off the curve,
    ``bad-plaintext`` for whatever does not decrypt to the parts of one, as another exchange's does.
    """
    (both,) = keys.parts(message_2, 1, 1, MAX_MESSAGE_2)
    both = keys.as_bytes(both)
    g_y, ciphertext = both[:32], both[32:]
    th_2 = keys.th_2(started.message_1, g_y)
    prk_2e = keys.extract(th_2, started.ephemeral.exchange(g_y))
    plaintext = keys.xor(ciphertext, keys.kdf(prk_2e, keys.KEYSTREAM_2, th_2, len(ciphertext)))
    try:
        c_r, kid_r, mac, *ead = keys.parts(plaintext, 3, keys.MAX_ITEMS, MAX_MESSAGE_2)
        unverified = Unverified(
            suite=started.suite,
            ephemeral=started.ephemeral,
            c_r=keys.parse_identifier(c_r, limit=16),
            kid_r=keys.parse_identifier(kid_r, limit=MAX_KID),
            ead_2=keys.parse_ead(ead),
            g_y=g_y,
            th_2=th_2,
            mac=keys.as_bytes(mac),
            plaintext=plaintext,
            prk_2e=prk_2e,
        )
    except MalformedError as error:
        raise MalformedError("bad-plaintext", "message 2 does not decrypt to its parts") from error
    if len(unverified.mac) != started.suite.mac:
        raise MalformedError("bad-plaintext", f"a MAC of {len(unverified.mac)} bytes")
    return unverified


def make_3(
    verified: Verified,
    *,
    static: Secret,
    kid_i: bytes,
    cred_i: bytes,
    ead_3: Sequence[Ead] = (),
) -> tuple[bytes, Session]:
    """Make message 3 (RFC 9528 §5.4.2); return it with the session that opens message 4 and exports keys."""
    suite, th_3 = verified.suite, verified.th_3
    salt = keys.kdf(verified.prk_3e2m, keys.SALT_4E3M, th_3, keys.HASH_LENGTH)
    prk_4e3m = keys.extract(salt, static.exchange(verified.g_y))
    ead = keys.encode_ead(ead_3)
    context = keys.id_cred(kid_i) + encode(th_3) + cred_i + ead
    mac = keys.kdf(prk_4e3m, keys.MAC_3, context, suite.mac)
    plaintext = keys.encode_identifier(kid_i) + encode(mac) + ead
    ciphertext = keys.seal(suite, verified.prk_3e2m, (keys.K_3, keys.IV_3), th_3, plaintext)
    return encode(ciphertext), Session.derive(suite, th_3, plaintext, cred_i, prk_4e3m)
