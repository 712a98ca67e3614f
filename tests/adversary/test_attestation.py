"""What a device measures: firmware that is revoked, too old, changed, or vouched for by somebody else.

Each test publishes and revokes a firmware of its own, known by its digest, so that no other device is hurt.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

import firstlight
from firstlight.attestation.evidence import Debug, Measurement, ReferenceName
from firstlight.attestation.reference import parse_reference, sign_reference
from firstlight.cli.demo.commands import CommandError, run
from firstlight.custody.file import SigningKey
from firstlight.roles.measure import COMPONENT, reference_identifier, software_digest
from firstlight.roles.registration import party_of
from firstlight.stores.exchanges import GrantState
from firstlight.testing.byhand import Hand, MakeEvidence, ask
from firstlight.testing.handheld import eventually
from firstlight.testing.interceptor import Answered, Asked, Dropped, Forward
from firstlight.testing.lab import Lab
from firstlight.transports.body import CBOR

ROLES = ("mno", "sp")


@dataclass(frozen=True, slots=True)
class Firmware:
    """A firmware that some device runs."""

    lab: Lab
    measured: Measurement

    @property
    def identifier(self) -> bytes:
        """The id of its reference-value set."""
        return reference_identifier(self.measured.digest)

    def publish(self, maker: Path | None = None, *, svn: int | None = None) -> dict[str, Any]:
        """Publish its reference values, as the manufacturer or another one."""
        words = ("--firmware-digest", self.measured.digest.hex(), "--svn", self.measured.svn if svn is None else svn)
        values = run("manufacturer", "publish", maker or self.lab.places.manufacturer, "--model", "fl-1", *words).values
        return dict(values)

    def revoke(self, *words: str) -> None:
        """Revoke something."""
        run("manufacturer", "revoke", self.lab.places.manufacturer, *words)

    def on(self, hand: Hand, **changes: Any) -> MakeEvidence:
        """Return what makes the evidence of a device that runs it."""
        batch = hand.found.view.batch
        assert batch is not None
        reference = ReferenceName(batch.issuer, self.identifier)
        return hand.evidence(**{"measurements": (self.measured,), "reference": reference} | changes)


@pytest.fixture
def firmware(lab: Lab) -> Firmware:
    return Firmware(lab, Measurement(COMPONENT, secrets.token_bytes(32), 3))


@pytest.fixture
def hand(lab: Lab) -> Hand:
    return Hand(lab, lab.device())


def refused(lab: Lab, hand: Hand, code: str, evidence: MakeEvidence) -> None:
    """Check that both parties refuse evidence: nothing is granted, no slot is taken."""
    for role in ROLES:
        with lab.adding(role, exchange=1), lab.heard(role, code):
            assert hand.refused(role, evidence=evidence) == code


def grants_end(hand: Hand) -> None:
    """Wait until both parties have ended all that they had granted to a device whose firmware was revoked."""
    for role in ROLES:
        eventually(lambda: set(hand.grants(role)) == {GrantState.ENDED}, f"its grants end at {role}", seconds=40)  # noqa: B023


@pytest.fixture(scope="module")
def stranger(lab: Lab) -> Path:
    """Another manufacturer, registered as well."""
    at = lab.places
    state, request = at.root / "stranger", at.papers / "stranger.registration"
    joined = ("--genesis", at.genesis, "--node", lab.addresses.node, "--gateway", lab.addresses.gateway)
    run("manufacturer", "init", state, *joined)
    run("manufacturer", "register", state, "--out", request)
    run("consortium", "endorse", at.consortium, request, "--node", lab.addresses.node)
    return state


# --- revoked and too old ------------------------------------------------------------------------


def test_firmware_that_was_revoked_is_refused(lab: Lab, hand: Hand, firmware: Firmware) -> None:
    """A device runs firmware in which a hole was found since; its reference values still stand on the ledger."""
    firmware.publish()
    for role in ROLES:
        hand.onboard(role, evidence=firmware.on(hand))
    firmware.revoke("--firmware", firmware.measured.digest.hex())
    grants_end(hand)
    refused(lab, hand, "firmware-revoked", firmware.on(hand))
    hand.onboard("mno")


def test_reference_values_that_were_revoked_are_refused(lab: Lab, hand: Hand, firmware: Firmware) -> None:
    """A device names a set that its manufacturer has taken back; the parties still have its body."""
    firmware.publish()
    for role in ROLES:
        hand.onboard(role, evidence=firmware.on(hand))
    firmware.revoke("--reference", firmware.identifier.hex())
    grants_end(hand)
    refused(lab, hand, "reference-unknown", firmware.on(hand))
    hand.onboard("mno")


def test_firmware_below_the_minimum_is_refused(lab: Lab, hand: Hand, firmware: Firmware) -> None:
    """A device runs a version older than the set that it names allows, or names a newer firmware's set."""
    firmware.publish()
    for role in ROLES:
        hand.onboard(role, evidence=firmware.on(hand))
    old = replace(firmware.measured, svn=2)
    refused(lab, hand, "svn-too-low", firmware.on(hand, measurements=(old,)))
    refused(lab, hand, "component-changed", firmware.on(hand, measurements=(hand.measured,)))
    for role in ROLES:
        newer = replace(firmware.measured, svn=9)
        hand.onboard(role, evidence=firmware.on(hand, measurements=(newer,)))


def test_what_the_set_does_not_say_is_refused(lab: Lab, hand: Hand, firmware: Firmware) -> None:
    """A device measures more, less or other components than its manufacturer published, or is open to debuggers."""
    firmware.publish()
    hand.onboard("mno", evidence=firmware.on(hand))
    own, more = firmware.measured, Measurement("loader", bytes(32), 3)
    model = b"fl-2"
    bent: dict[str, dict[str, Any]] = {
        "component-unknown": {"measurements": (own, more)},
        "component-changed": {"measurements": (replace(own, digest=bytes(32)),)},
        "debug-enabled": {"debug": Debug.ENABLED},
        "secure-boot-off": {"secure_boot": False},
        "hwmodel-mismatch": {"model": model},
        "oemid-mismatch": {"oemid": bytes(16)},
        "evidence-profile": {"profile": "tag:example.org,2026:other"},
    }
    for code, changes in bent.items():
        with lab.adding("mno", exchange=1):
            assert hand.refused("mno", evidence=firmware.on(hand, **changes)) == code
    assert hand.grants("mno") == [GrantState.PENDING]


# --- reference values by others, or bodies that are not what the ledger says --------------------


def test_reference_values_by_a_foreign_issuer_are_refused(
    lab: Lab, hand: Hand, firmware: Firmware, stranger: Path
) -> None:
    """Another registered manufacturer publishes values for this model, and a changed device names them."""
    issuer = party_of(stranger)
    for role in ROLES:
        hand.onboard(role)
    firmware.publish(stranger)
    foreign = firmware.on(hand, reference=ReferenceName(issuer, firmware.identifier))
    refused(lab, hand, "reference-foreign-issuer", foreign)
    refused(lab, hand, "oemid-mismatch", firmware.on(hand, oemid=issuer, reference=ReferenceName(issuer, bytes(16))))
    refused(lab, hand, "reference-unknown", firmware.on(hand))
    firmware.publish()
    for role in ROLES:
        hand.onboard(role, evidence=firmware.on(hand))


def test_a_stranger_revokes_nothing_of_others(lab: Lab, hand: Hand, firmware: Firmware, stranger: Path) -> None:
    """Another manufacturer revokes this firmware's digest and this maker's key, to shut a competitor's fleet out."""
    firmware.publish()
    for role in ROLES:
        hand.onboard(role, evidence=firmware.on(hand))
    signer = SigningKey.load(lab.places.manufacturer / "signing.pem").public
    with lab.unchanged(lab.places.mno, lab.places.sp, lab.places.owner, lab.places.gateway):
        run("manufacturer", "revoke", stranger, "--firmware", firmware.measured.digest.hex())
        run("manufacturer", "revoke", stranger, "--signer", hashlib.sha256(signer).hexdigest())
    with lab.untouched(), pytest.raises(CommandError) as refused:
        run("manufacturer", "revoke", stranger, "--reference", firmware.identifier.hex(), "--model", "fl-1")
    assert refused.value.code == "unknown-reference"
    for role in ROLES:
        hand.onboard(role, evidence=firmware.on(hand))


def test_firmware_that_nobody_published_is_refused(lab: Lab, hand: Hand, firmware: Firmware) -> None:
    """A device runs firmware of somebody's own making, and names a set that is not on the ledger."""
    hand.onboard("mno")
    hand.onboard("sp")
    refused(lab, hand, "reference-unknown", firmware.on(hand))


def test_bodies_that_are_not_what_the_ledger_says_count_nothing(
    lab: Lab, hand: Hand, firmware: Firmware, stranger: Path
) -> None:
    """The gateway serves another body for a set's hash: a bent one, one by another issuer, another set's, or none."""
    published = firmware.publish()
    hand.onboard("mno")
    hand.onboard("sp")
    body = (lab.places.manufacturer / "references" / f"{firmware.identifier.hex()}.corim").read_bytes()
    values = parse_reference(body).values
    weaker = replace(values, components=(replace(values.components[0], digest=secrets.token_bytes(32)),))
    by_stranger = sign_reference(weaker, SigningKey.load(stranger / "signing.pem"))
    other = next(path for path in (lab.places.manufacturer / "references").iterdir() if path.read_bytes() != body)
    bent: list[bytes | None] = [by_stranger, other.read_bytes(), body[:-1], b"", bytes(100_000), None]
    fired: list[bytes | None] = []

    def serve(asked: Asked, forward: Forward) -> Answered:
        assert published["digest"] in asked.path
        given = forward(asked)
        assert given.body == body
        fired.append(bent[0])
        if bent[0] is None:
            raise Dropped
        return given.with_body(bent[0])

    while bent:
        with lab.interceptor.bending("/v1/blobs/", serve):
            refused(lab, hand, "reference-unknown", firmware.on(hand))
        assert fired[-1] == bent.pop(0)
    for role in ROLES:
        hand.onboard(role, evidence=firmware.on(hand))


def test_a_gateway_keeps_no_body_that_is_not_live(lab: Lab, firmware: Firmware, stranger: Path) -> None:
    """Somebody uploads a body under another's hash, or one that the ledger does not have."""
    firmware.publish()
    path = lab.places.manufacturer / "references" / f"{firmware.identifier.hex()}.corim"
    body = path.read_bytes()
    forged = sign_reference(parse_reference(body).values, SigningKey.load(stranger / "signing.pem"))
    issuer = lab.parties["manufacturer"]
    query = f"issuer={issuer}&model={b'fl-1'.hex()}&identifier={firmware.identifier.hex()}"

    def put(under: bytes, data: bytes, named: str) -> tuple[int, str]:
        url = f"/v1/blobs/{hashlib.sha256(under).hexdigest()}?{named}"
        answered = ask(lab.interceptor.url, Asked("PUT", url, data, CBOR))
        return answered.status, answered.body.decode(errors="replace")

    assert put(body, body, query)[0] == 200
    unknown = query.replace(firmware.identifier.hex(), secrets.token_hex(16))
    with lab.untouched():
        for code, (status, said) in {
            "wrong-digest": put(body, forged, query),
            "wrong-digest ": put(forged, forged, query),
            "reference-unknown": put(forged, forged, unknown),
        }.items():
            assert status >= 400
            assert code.strip() in said
    firmware.revoke("--reference", firmware.identifier.hex())
    with lab.untouched():
        status, said = put(body, body, query)
    assert status >= 400
    assert "reference-revoked" in said


# --- a real device with other firmware ----------------------------------------------------------


def test_a_real_device_with_changed_firmware_gets_no_credential(lab: Lab, tmp_path: Path) -> None:
    """Somebody changed a device's software: it measures what it is, and gets nothing until its maker stands for it."""
    package = tmp_path / "firstlight"
    shutil.copytree(Path(firstlight.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "__init__.py").write_text('"""Not what the maker shipped."""\n')
    changed = Firmware(lab, Measurement(COMPONENT, software_digest(package), 1))
    first, second = lab.device(), lab.device()
    assert boots(lab.device(), Path(firstlight.__file__).parent.parent, None) == ""
    lab.settle()
    told = {"mno.exchange": 1, "gateway.receipt": 1, "owner.receipt": 1}
    with lab.growth() as grown:
        assert boots(first, tmp_path, lambda lines: "waiting" in lines[-1].values()) == "reference-unknown"
    assert grown == told, "a refusal on record, of which the device tells its owner"
    changed.publish()
    assert boots(first, tmp_path, None) == ""
    lab.settle()
    changed.revoke("--firmware", changed.measured.digest.hex())
    grants_end(Hand(lab, first))
    with lab.growth() as grown:
        assert boots(second, tmp_path, lambda lines: "waiting" in lines[-1].values()) == "firmware-revoked"
    assert grown == told
    assert not list((second / "grants").iterdir())


def boots(device: Path, packages: Path, until: Callable[[list[dict[str, str]]], bool] | None) -> str:
    """Run a device with the software in ``packages`` until it ends or ``until`` holds; return why it waits, if so."""
    start = f"import sys; sys.path.insert(0, {str(packages)!r}); from firstlight.cli.main import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", start, "device", "run", str(device), "--once", "--json"],
        env={},
        stdout=subprocess.PIPE,
        cwd=device,
    )
    assert process.stdout is not None
    lines: list[dict[str, str]] = []
    try:
        end = time.monotonic() + 180
        for line in process.stdout:
            lines.append(json.loads(line))
            if (until is not None and until(lines)) or time.monotonic() > end:
                break
        else:
            assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    return lines[-1].get("code", "")
