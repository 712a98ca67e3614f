"""Runs ``firstlight`` as it is installed, and notes aside which secrets its processes make that live in memory only.

``python recording.py DIRECTORY words…`` is ``firstlight words…`` with the functions that draw and derive keys wrapped:
what they return goes into a file of ``DIRECTORY``, one line for each, kind and hexadecimal. The product knows nothing
of it, and has no switch for it.
"""

from __future__ import annotations

import functools
import os
import ssl
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from firstlight.custody.file import AgreementKey
from firstlight.onboarding import token
from firstlight.onboarding.edhoc import keys
from firstlight.sealing import hpke
from firstlight.sim import aka_prime, attach, milenage, suci
from firstlight.sim import attach_device as usim

SHORTEST = 8
"""Bytes below which chance alone would find a secret: AK is left out, and OPc masks it."""
TLS = "tls.keys"
Put = Callable[[str, bytes], None]


def _of_kdf(given: tuple[Any, ...], out: bytes) -> Iterable[bytes]:
    """Return what EDHOC derives but MACs, which the peer checks, and IVs."""
    return () if given[1] in (keys.MAC_2, keys.MAC_3, keys.IV_3, keys.IV_4) else (out,)


def _itself(_: tuple[Any, ...], out: Any) -> Iterable[bytes]:
    return (out,)


def _all(_: tuple[Any, ...], out: Any) -> Iterable[bytes]:
    return tuple(out)


def _of_proof(_: tuple[Any, ...], out: str) -> Iterable[bytes]:
    return (bytes.fromhex(out),)


def _of_ec(_: tuple[Any, ...], out: ec.EllipticCurvePrivateKey) -> Iterable[bytes]:
    return (out.private_numbers().private_value.to_bytes(32),)


FUNCTIONS: tuple[tuple[str, tuple[Any, ...], str, Callable[[tuple[Any, ...], Any], Iterable[bytes]]], ...] = (
    ("key-made", (ec,), "generate_private_key", _of_ec),
    ("edhoc-prk", (keys,), "extract", _itself),
    ("edhoc-derived", (keys,), "kdf", _of_kdf),
    ("edhoc-ephemeral", (keys.Ephemeral,), "from_secret", lambda _, out: (out.secret,)),
    ("ecdh", (keys.Ephemeral, AgreementKey), "exchange", _itself),
    ("token-key", (token.TokenKey,), "__init__", lambda given, _: (given[1],)),
    ("res-ck-ik", (milenage,), "f2345", lambda _, out: (out.res, out.ck, out.ik)),
    ("ck-ik-prime", (aka_prime,), "ck_ik_prime", _all),
    (
        "aka-prime-keys",
        (aka_prime,),
        "derive_keys",
        lambda _, out: (out.k_encr, out.k_aut, out.k_re, out.msk, out.emsk),
    ),
    ("session-proof", (attach, usim), "session_proof", _of_proof),
    ("suci-ephemeral", (suci,), "_ephemeral", _itself),
    ("suci-shared", (suci,), "_exchange", _itself),
    ("suci-keys", (suci,), "_keys", _all),
    ("hpke-shared", (hpke,), "_shared", _itself),
    ("hpke-context", (hpke.Context,), "schedule", lambda _, out: (out.key,)),
)
"""Kind, owners and name of each function whose outcome is secret, and what is secret in that."""
KINDS = frozenset(kind for kind, *_ in FUNCTIONS)


def _wrapped(kind: str, function: Any, secrets_of: Callable[[tuple[Any, ...], Any], Iterable[bytes]], put: Put) -> Any:
    bound = isinstance(function, classmethod)
    inner = function.__func__ if bound else function

    @functools.wraps(inner)
    def noting(*given: Any, **named: Any) -> Any:
        out = inner(*given, **named)
        for secret in secrets_of((*given, *named.values()), out):
            put(kind, secret)
        return out

    return classmethod(noting) if bound else noting


def _keeping(place: Path, function: Any) -> Any:
    """Return a method of an SSL context that has OpenSSL note the connection's secrets first."""

    @functools.wraps(function)
    def noting(context: Any, *given: Any, **named: Any) -> Any:
        context.keylog_filename = str(place / TLS)
        return function(context, *given, **named)

    return noting


@contextmanager
def recording(place: Path) -> Iterator[None]:
    """Note in ``place`` all secrets that this process makes while the context lasts."""
    file = (place / f"{os.getpid()}.secrets").open("a", buffering=1)
    former: list[tuple[Any, str, Any]] = []

    def put(kind: str, secret: bytes) -> None:
        if len(secret) >= SHORTEST:
            file.write(f"{kind} {secret.hex()}\n")

    def replace(owner: Any, name: str, wrapped: Any) -> None:
        former.append((owner, name, vars(owner)[name]))
        setattr(owner, name, wrapped)

    for kind, owners, name, secrets_of in FUNCTIONS:
        for owner in owners:
            holder = next(one for one in getattr(owner, "__mro__", (owner,)) if name in vars(one))
            replace(holder, name, _wrapped(kind, vars(holder)[name], secrets_of, put))
    for name in ("wrap_socket", "wrap_bio"):
        replace(ssl.SSLContext, name, _keeping(place, vars(ssl.SSLContext)[name]))
    try:
        yield
    finally:
        for owner, name, function in reversed(former):
            setattr(owner, name, function)
        file.close()


def recorded(place: Path) -> set[tuple[str, bytes]]:
    """Return all secrets that were noted in ``place``, each with its kind."""
    found: set[tuple[str, bytes]] = set()
    for path in place.glob("*.secrets"):
        for line in path.read_text().splitlines():
            kind, _, secret = line.partition(" ")
            found.add((kind, bytes.fromhex(secret)))
    for line in (place / TLS).read_text().splitlines():
        if not line.startswith("#"):
            label, _, secret = line.split()
            found.add((f"tls {label}", bytes.fromhex(secret)))
    return found


if __name__ == "__main__":
    from firstlight.cli.main import main

    directory = Path(sys.argv.pop(1))
    with recording(directory):
        main()
