"""A whole run, with refusals in it: no secret made in it stands in a log, in an output, on the ledger or on a wire.

Of what is stored: all private keys in files, batch secrets, salts and mailbox secrets, K, OPc and IMSIs, plan claims
and their salts, the home network's key. Of what lives in memory only, as :mod:`recording` notes it in every process of
the run, this one included: the private scalars of all P-256 keys that are made (so purchase keys, which are erased),
EDHOC's ephemeral keys, ECDH results, PRKs, keystreams, message keys and exporter output, the token keys of half-open
exchanges, RES, CK and IK, CK' and IK', K_encr, K_aut, K_re, MSK and EMSK, the proofs of sessions, the ephemeral keys,
shared secrets and keys of SUCIs, shared secrets and keys of HPKE contexts of our own, and the secrets of all TLS
connections. Not seen: what OpenSSL and ``cryptography`` draw and derive inside of themselves.
"""

from __future__ import annotations

import base64
import secrets
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from tests.scenarios import recording

from firstlight.cli.demo import commands
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


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """All that commands print from now on."""
    heard: list[bytes] = []
    real = subprocess.Popen.communicate

    def listen(process: Any, *words: Any, **options: Any) -> tuple[Any, Any]:
        done = real(process, *words, **options)
        heard.extend(one for one in done if isinstance(one, bytes))
        return done

    monkeypatch.setattr(subprocess.Popen, "communicate", listen)
    return heard


@pytest.fixture
def memory(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where all processes of the run, and this one, note the secrets that they make; no log of theirs is there."""
    place = tmp_path_factory.mktemp("memory")
    monkeypatch.setattr(commands, "PROGRAM", (sys.executable, recording.__file__, str(place)))
    with recording.recording(place):
        yield place


def test_no_secret_stands_in_logs_outputs_ledger_or_wire(tmp_path: Path, memory: Path, said: list[bytes]) -> None:
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
    assert sum(map(len, said)) > 2_000
    words = b"\n".join([*(path.read_bytes() for path in logs), *said])
    haystack = b"\n".join([words, *(path.read_bytes() for path in stored), *seen])
    assert lab.parties["mno"].encode() in haystack
    assert bytes.fromhex(lab.batch) in haystack
    leaked = sorted({name for name, secret in hidden if leaks(secret, haystack)})
    assert leaked == []
    made = recording.recorded(memory)
    kinds = {kind for kind, _ in made}
    assert kinds >= recording.KINDS, recording.KINDS - kinds
    assert {"tls CLIENT_TRAFFIC_SECRET_0", "tls SERVER_TRAFFIC_SECRET_0", "tls EXPORTER_SECRET"} <= kinds
    assert len(list(memory.glob("*.secrets"))) > 20
    assert {one for name, one in hidden if name.startswith("K of")} <= {one for _, one in made}, "K is exported"
    assert sorted({kind for kind, secret in made if leaks(secret, words)}) == []
    assert sorted({kind for kind, secret in made if secret in haystack or secret.hex().encode() in haystack}) == []


@pytest.mark.parametrize("size", [16, 32])
def test_the_search_finds_every_spelling(size: int) -> None:
    secret = secrets.token_bytes(size)
    for one in spellings(secret):
        assert leaks(secret, b'{"detail": "' + one + b'"}')
    assert not leaks(secret, secrets.token_bytes(4_000))
