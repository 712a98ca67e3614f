"""A whole run, with refusals in it: no secret made in it stands in a log, in an output, on the ledger or on a wire."""

from __future__ import annotations

import base64
import secrets
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from firstlight.cli.demo.commands import CommandError, run
from firstlight.cli.processes import Family
from firstlight.errors import AccessError
from firstlight.identity.birth import BirthCredential
from firstlight.plan.claims import Claim
from firstlight.roles.device.memory import Sight, StoredGrant
from firstlight.roles.party.mno import HomeKeyFile
from firstlight.testing.byhand import Hand, ask, attach
from firstlight.testing.interceptor import Asked, Interceptor
from firstlight.testing.lab import Lab, open_lab

DEVICES = 5
Found = tuple[str, bytes]


def spellings(secret: bytes) -> Iterator[bytes]:
    """Iterate over how a secret may be written."""
    yield secret
    yield secret.hex().encode()
    yield secret.hex().upper().encode()
    yield secret.hex(" ").encode()
    yield base64.b64encode(secret).rstrip(b"=")
    yield base64.urlsafe_b64encode(secret).rstrip(b"=")
    yield str(int.from_bytes(secret)).encode()
    yield str(int.from_bytes(secret, "little")).encode()
    yield repr(secret)[2:-1].encode()


def leaks(secret: bytes, haystack: bytes) -> bool:
    """Tell whether a secret stands in ``haystack``, in whatever spelling."""
    return any(one in haystack for one in spellings(secret))


def private_keys(root: Path) -> Iterator[Found]:
    """Iterate over the secret scalars of all keys in files."""
    for path in root.rglob("*.pem"):
        data = path.read_bytes()
        start = data.find(b"-----BEGIN PRIVATE KEY")
        if start < 0:
            continue
        key = load_pem_private_key(data[start:], password=None)
        if isinstance(key, Ed25519PrivateKey):
            yield str(path), key.private_bytes_raw()
        else:
            assert isinstance(key, ec.EllipticCurvePrivateKey)
            yield str(path), key.private_numbers().private_value.to_bytes(32)


def of_devices(root: Path) -> Iterator[Found]:
    """Iterate over what devices were born with and given: salts, mailbox secrets, K, OPc, IMSIs, plans."""
    for path in root.glob("*/birth.cbor"):
        birth = BirthCredential.decode(path.read_bytes())
        yield f"salt {birth.index}", birth.salt
        yield f"mailbox {birth.index}", birth.mailbox
    for path in root.glob("*/grants/*.cbor"):
        sim = StoredGrant.decode(path.read_bytes()).sim
        if sim is not None:
            yield f"K of {path}", sim.credentials.k
            yield f"OPc of {path}", sim.credentials.opc
            yield f"IMSI of {path}", sim.credentials.imsi.encode()
    for path in root.glob("*/view.cbor"):
        acted = Sight.decode(path.read_bytes()).acted
        if acted is not None:
            plan = acted.plan()
            claims: list[Claim] = [plan.profile, plan.network, *plan.services]
            for claim in claims:
                yield f"claim in {path}", claim.encode()
                yield f"salt of a claim in {path}", claim.salt


def of_roles(lab: Lab) -> Iterator[Found]:
    """Iterate over what the roles keep: batch secrets, subscriptions, the home network's key."""
    for path in (lab.places.manufacturer / "batches").glob("*/*secret*"):
        yield str(path), path.read_bytes()
    for imsi, k, opc in lab.query("mno", "SELECT imsi, k, opc FROM subscription"):
        yield from (("an IMSI", str(imsi).encode()), ("K", k), ("OPc", opc))
    yield "home network", HomeKeyFile.decode((lab.places.mno / "home-network.key").read_bytes()).private


def wires(*interceptors: Interceptor) -> Iterator[bytes]:
    """Iterate over all bytes that went through interceptors."""
    for interceptor in interceptors:
        for asked, answered in interceptor.seen:
            yield asked.path.encode() + b"\n" + asked.body
            yield answered.body if answered is not None else b""


def misbehave(lab: Lab, spare: Path) -> list[Found]:
    """Bring about refusals and errors, which are where secrets like to slip out; return what was secret in it."""
    hand = Hand(lab, spare)
    attachment = attach(hand.sim(hand.onboard("mno")))
    found = [("session's proof", attachment.proxy.password.encode())]
    sim = hand.sim(hand.onboard("mno")).sim
    wrong = replace(sim.credentials, k=secrets.token_bytes(16))
    found += [("K", sim.credentials.k), ("OPc", sim.credentials.opc), ("IMSI", sim.credentials.imsi.encode())]
    found += [("a wrong K", wrong.k)]
    with pytest.raises(AccessError):
        attach(replace(sim, credentials=wrong))
    attach(sim)
    assert hand.refused("mno", evidence=lambda _: b"nonsense") == "evidence-malformed"
    assert hand.refused("sp", request=b"nonsense") == "request-malformed"
    assert hand.refused("mno", party_revision=9) == "stale-view"
    sent = hand.open("mno")
    for path in ("/.well-known/edhoc", "/v1/orders", "/v1/nothing"):
        ask(lab.url("mno"), Asked("POST", path, sent.request_2[:-1], "application/edhoc+cbor-seq"))
    for words in (
        ("owner", "sell", lab.places.owner, "--to", spare / "birth.cbor", "--out", lab.places.root / "no.cbor"),
        ("owner", "accept", lab.places.owner, spare / "birth.cbor"),
        ("manufacturer", "anchor", lab.places.manufacturer, "--batch", lab.batch[:-2] + "00"),
        ("mno", "approve", lab.places.mno, secrets.token_hex(16)),
        ("device", "show", lab.places.owner),
    ):
        with pytest.raises(CommandError):
            run(*words)
    return found


def test_no_secret_stands_in_logs_outputs_ledger_or_wire(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[bytes] = []
    real = subprocess.run

    def listen(*words: Any, **options: Any) -> subprocess.CompletedProcess[bytes]:
        done = real(*words, **options)
        said.extend((done.stdout or b"", done.stderr or b""))
        return done

    monkeypatch.setattr(subprocess, "run", listen)
    hidden: list[Found] = []
    with Family(tmp_path / "output") as family:
        for lab in open_lab(tmp_path, family, devices=DEVICES):
            for _ in range(2):
                lab.connects(lab.device())
            hidden += misbehave(lab, lab.device())
            lab.switch_on_all([lab.device(), lab.device()])
            for command in (("owner", "status", lab.places.owner), ("mno", "status", lab.places.mno, "--grants")):
                run(*command)
            hidden += of_roles(lab)
    hidden += private_keys(tmp_path)
    hidden += of_devices(lab.places.devices)
    kinds = {name.split()[0] for name, _ in hidden}
    assert kinds >= {"salt", "mailbox", "K", "OPc", "IMSI", "claim", "session's", "home"}
    assert len([name for name, _ in hidden if name.endswith(".pem")]) > 2 * DEVICES
    assert any("batches" in name for name, _ in hidden)
    logs = [path for path in tmp_path.rglob("*") if path.suffix in (".jsonl", ".out") and path.is_file()]
    assert len(logs) > 15
    assert sum(path.stat().st_size for path in logs) > 10_000
    stored = [*lab.places.node.glob("*.sqlite*"), *lab.places.gateway.glob("*.sqlite*")]
    assert len(stored) >= 2
    seen = list(wires(lab.interceptor, lab.ledger))
    assert sum(map(len, seen)) > 100_000
    haystack = b"\n".join([*(path.read_bytes() for path in (*logs, *stored)), *said, *seen])
    assert lab.parties["mno"].encode() in haystack
    assert bytes.fromhex(lab.batch) in haystack
    leaked = sorted({name for name, secret in hidden if leaks(secret, haystack)})
    assert leaked == []


@pytest.mark.parametrize("size", [16, 32])
def test_the_search_finds_every_spelling(size: int) -> None:
    secret = secrets.token_bytes(size)
    for one in spellings(secret):
        assert leaks(secret, b'{"detail": "' + one + b'"}')
    assert not leaks(secret, secrets.token_bytes(4_000))
