"""Who learns what: what stands in the stores and logs of those who carry, prove and serve, after devices connected.

Every file of a role is read as it lies there, its database's journal and its log included, for what the role is not to
know: as bytes, in hexadecimal and in base64.
"""

from __future__ import annotations

import base64
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from firstlight.plan.claims import PartyClaim
from firstlight.roles.device.memory import ATTESTATION, GRANTS, IDENTITY, VIEW, Sight, StoredGrant
from firstlight.testing.byhand import Hand
from firstlight.testing.lab import Lab

PRIVATE = {IDENTITY, ATTESTATION}


@dataclass(frozen=True, slots=True)
class Device:
    """What there is to know about one device that has connected."""

    own: Mapping[str, bytes]
    """Its keys, salt, leaf, mailbox secret and evidence."""
    plan: Mapping[str, bytes]
    """What its owner chose, by what it is."""
    claims: Mapping[str, PartyClaim]
    credentials: Mapping[str, bytes]


@pytest.fixture(scope="module")
def device(lab: Lab) -> Device:
    """A device that connected honestly: the same fixture shows that what is looked for exists."""
    place = lab.device()
    lab.connects(place)
    lab.settle()
    return described(place, lab)


def stored_grants(place: Path) -> list[StoredGrant]:
    """Return the grants of a device that has connected."""
    stored = [StoredGrant.decode(path.read_bytes()) for path in (place / GRANTS).glob("*.cbor")]
    assert len(stored) == 2
    return stored


def described(place: Path, lab: Lab) -> Device:
    """Return what there is to know about a device that has connected."""
    hand = Hand(lab, place)
    birth, acted = hand.birth, Sight.decode((place / VIEW).read_bytes()).acted
    assert acted is not None
    opened = acted.plan()
    sim = next(one.sim for one in stored_grants(place) if one.sim is not None)
    own = {
        "identity key": birth.identity[1:],
        "attestation key": birth.attestation[1:],
        "salt": birth.salt,
        "leaf": birth.leaf().hash(),
        "mailbox secret": birth.mailbox,
    }
    plan = {
        "profile": opened.profile.salt,
        "receipt key": opened.profile.receipt_key,
        "network order": opened.network.order,
        "network salt": opened.network.salt,
        "service order": opened.services[0].order,
        "service salt": opened.services[0].salt,
        "operator": opened.network.party,
        "provider": opened.services[0].party,
    }
    credentials = {"IMSI": sim.credentials.imsi.encode(), "K": sim.credentials.k, "OPc": sim.credentials.opc}
    return Device(own, plan, {"mno": opened.network, "sp": opened.services[0]}, credentials)


def spellings(secret: bytes) -> Iterator[bytes]:
    """Yield how bytes may be written down."""
    yield secret
    yield secret.hex().encode()
    yield secret.hex().upper().encode()
    for start in range(3):
        yield base64.b64encode(bytes(start) + secret)[4 if start else 0 : -4]


def contents(state: Path) -> Iterator[tuple[str, bytes]]:
    """Yield all files of a role, and each database once more as it is with its journal."""
    for path in sorted(state.rglob("*")):
        if path.is_file():
            yield path.name, path.read_bytes()
        if path.suffix == ".sqlite":
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
                yield f"{path.name}, dumped", connection.serialize()


def known(state: Path, wanted: Mapping[str, bytes]) -> set[str]:
    """Return which of the wanted things stand anywhere in a role's directory."""
    files = list(contents(state))
    assert sum(len(data) for _, data in files) > 1_000
    return {
        what
        for what, secret in wanted.items()
        if any(spelling in data for spelling in spellings(secret) for _, data in files)
    }


def test_what_is_looked_for_is_found_where_it_may_be(lab: Lab, device: Device) -> None:
    """The honest case: the parties know what they were shown, so that finding nothing elsewhere means something."""
    assert {"network order"} <= known(lab.places.mno, device.plan)
    assert {"service order"} <= known(lab.places.sp, device.plan)
    assert known(lab.places.mno, device.credentials) == {"IMSI", "K", "OPc"}
    assert {"network order", "service order"} <= known(lab.places.owner, device.plan)


@pytest.mark.parametrize("role", ["gateway", "node"])
def test_who_carries_and_proves_learns_nothing_of_a_device_or_its_plan(lab: Lab, device: Device, role: str) -> None:
    """A gateway, or a node, keeps all that passes: no device's key, no salt, no order, no operator of any device.

    Party ids are on the ledger; that they are any device's is not.
    """
    state = lab.state(role)
    hidden = {what: secret for what, secret in device.plan.items() if what not in ("operator", "provider")}
    assert known(state, {**device.own, **hidden, **device.credentials}) == set()
    if role == "gateway":
        log = (state / "log.jsonl").read_bytes()
        assert device.plan["operator"].hex().encode() not in log
        rows = lab.query("gateway", "SELECT sealed FROM envelope")
        assert len({len(sealed) for (sealed,) in rows}) == 1
        assert len({len(sealed) for (sealed,) in lab.query("gateway", "SELECT sealed FROM receipt")}) == 1


def test_a_witness_learns_nothing_but_heads(lab: Lab, device: Device) -> None:
    """A witness keeps headers and hashes; of batches, tenures, parties and devices it knows nothing."""
    state = lab.places.witness(1)
    assert known(state, {**device.own, **device.plan, **device.credentials, "batch": bytes.fromhex(lab.batch)}) == set()


@pytest.mark.parametrize(("role", "other"), [("mno", "sp"), ("sp", "mno")])
def test_a_party_learns_its_own_claim_alone(lab: Lab, device: Device, role: str, other: str) -> None:
    """A chosen operator keeps all it was shown: it does not learn the services of a device, nor they the operator."""
    foreign = device.claims[other]
    hidden = {"party": foreign.party, "order": foreign.order, "salt": foreign.salt}
    hidden |= {"profile": device.plan["profile"], "receipt key": device.plan["receipt key"]}
    hidden |= {"mailbox secret": device.own["mailbox secret"]}
    if role == "sp":
        hidden |= dict(device.credentials)
    assert known(lab.state(role), hidden) == set()


def test_a_former_owner_learns_nothing_of_what_came_after(lab: Lab, device: Device) -> None:
    """The distributor held the manifest: he knows the device's keys, and nothing of the next owner's plan."""
    files = list(contents(lab.places.distributor))
    for what in ("network order", "service order", "profile", "receipt key"):
        assert not any(spelling in data for spelling in spellings(device.plan[what]) for _, data in files), what
    assert any(device.own["salt"] in data for _, data in files)


def test_the_ledger_names_no_device_and_nobody_s_choice(lab: Lab, device: Device) -> None:
    """Whoever reads the whole ledger finds batches, tenures and registered parties, and no device."""
    with closing(sqlite3.connect(f"file:{lab.places.node / 'ledger.sqlite'}?mode=ro", uri=True)) as connection:
        data = connection.serialize()
    hidden = {what: one for what, one in device.plan.items() if what not in ("operator", "provider")}
    found = {
        what
        for what, secret in {**device.own, **hidden, **device.credentials}.items()
        if any(spelling in data for spelling in spellings(secret))
    }
    assert found == set()
    assert device.plan["operator"] in data


def test_a_gateway_that_notes_all_that_passes_learns_what_is_asked_for_and_no_more(lab: Lab) -> None:
    """A gateway writes down every byte of a device's journey, of its owner's mail and of receipts.

    It sees which operator it relays to, and of which parties a device has records proven: that much is asked for by
    name. Neither keys nor place of the device are in it, nor orders, salts, credentials, nor what a receipt says.
    """
    mark, place = len(lab.interceptor.seen), lab.device()
    lab.connects(place)
    made = described(place, lab)
    passed = [(asked, given) for asked, given in lab.interceptor.seen[mark:] if given is not None]
    paths = {asked.path.partition("?")[0] for asked, _ in passed}
    relayed = f"/relay/{made.plan['operator'].hex()}/.well-known/edhoc"
    assert {"/v1/mail", "/v1/bundles", "/v1/receipts", relayed} <= paths
    data = [one for asked, given in passed for one in (asked.path.encode(), asked.body, given.body)]

    def seen(wanted: Mapping[str, bytes]) -> set[str]:
        return {what for what, one in wanted.items() if any(word in part for word in spellings(one) for part in data)}

    hidden = {what: one for what, one in made.plan.items() if what not in ("operator", "provider")}
    assert seen({**made.own, **hidden, **made.credentials}) == set()
    assert seen({"batch": bytes.fromhex(lab.batch), "operator": made.plan["operator"]}) == {"batch", "operator"}
    relays = {asked.path for asked, _ in passed if asked.path.startswith("/relay/")}
    assert relays == {relayed}, "services are not reached through it"
    asked_for = b"party/" + made.plan["provider"].hex().encode()
    naming = {asked.path for asked, _ in passed if made.plan["provider"] in asked.body or asked_for in asked.body}
    assert naming <= {"/v1/bundles"}, "a record is asked for by its name, and that is where the name stands"
    grants = [one.grant.id for one in stored_grants(place)]
    assert seen({str(number): grant for number, grant in enumerate(grants)}) == set()


@pytest.mark.parametrize(
    ("together", "learnt"),
    [
        (("mno", "sp"), {"identity key", "attestation key", "salt", "leaf", "network order", "service order"}),
        (("gateway", "node", "sp"), {"identity key", "attestation key", "salt", "leaf", "service order"}),
        (("gateway", "node", "mno"), {"identity key", "attestation key", "salt", "leaf", "network order"}),
    ],
    ids=lambda value: "-".join(sorted(value)) if isinstance(value, tuple) else "",
)
def test_who_puts_together_what_each_knows_learns_the_sum_and_no_more(
    lab: Lab, device: Device, together: tuple[str, ...], learnt: set[str]
) -> None:
    """Operator and provider match a device by batch and index, or a gateway helps one of them: no secret follows.

    Nobody among them has what opens mail, what owners' receipts are sealed to, or a credential that another has made.
    """
    ids = ("operator", "provider")
    wanted = {**device.own, **{what: one for what, one in device.plan.items() if what not in ids}}
    found = set[str]().union(*(known(lab.state(role), wanted) for role in together))
    allowed = learnt | {f"{kind} salt" for kind in ("network", "service") if f"{kind} order" in learnt}
    assert {one for one in learnt if one.endswith("order")} <= found <= allowed
    assert not {"mailbox secret", "profile", "receipt key"} & found
    secrets_of_the_network = known(lab.places.sp, device.credentials) | known(lab.places.gateway, device.credentials)
    assert secrets_of_the_network == set()
