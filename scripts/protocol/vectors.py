"""The byte-exact examples: what stands in ``docs/vectors/`` and, in part, on the page."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import groupby
from typing import Any

from scripts.protocol.diagnostic import Items, Members, diagnose, many, sign1
from scripts.protocol.keys import MADE, Key, named, seal
from scripts.protocol.rules import NAMES
from scripts.protocol.world import (
    CHAIN,
    GATEWAY,
    IMSI,
    INDEX,
    MODEL,
    NOW,
    SIZE,
    Exchange,
    Journey,
    World,
    envelope_info,
)

from firstlight import cose, p256
from firstlight.attestation.evidence import TYP as EVIDENCE_TYP
from firstlight.attestation.evidence import Measurement, ReferenceName, pseudonym
from firstlight.attestation.reference import body_digest
from firstlight.chain.commit import vote_sign_bytes
from firstlight.chain.root import EpochStatement, RootStatement
from firstlight.chain.witness import WitnessRequest, WitnessStatement
from firstlight.discovery.bundle import Bundle, BundleRequest, StateProof, prove_state, proven_names
from firstlight.encoding import Record, decode, encode, encode_sequence
from firstlight.engines.port import Genesis
from firstlight.errors import FirstlightError
from firstlight.identity.birth import BirthCredential, Leaf
from firstlight.identity.credential import device_credential, id_cred, party_credential
from firstlight.identity.manifest import Entry, Head, Manifest
from firstlight.ledger import records
from firstlight.ledger.records import tree_key
from firstlight.ledger.transaction import (
    AddBudget,
    Body,
    Freeze,
    Kind,
    Recover,
    Retire,
    Revoked,
    RevokeReference,
    RotateRoot,
    Rotation,
    SetEpoch,
    SuspendParty,
    Unfreeze,
    UpdateParty,
    Withdraw,
    build,
    parse,
)
from firstlight.onboarding import messages
from firstlight.onboarding.edhoc import keys as edhoc
from firstlight.onboarding.edhoc.error import WRONG_SUITE, ErrorMessage
from firstlight.onboarding.messages import Claim, Refusal, SimGrant, X509Grant
from firstlight.onboarding.party import UNIFORM_ERROR
from firstlight.plan.claims import PartyClaim, PlanOpening, ProfileClaim
from firstlight.plan.order import Order, open_order, sign_order
from firstlight.roles import trade, wire
from firstlight.sealing import deposit, hpke, inquiry, receipt
from firstlight.sealing.deposit import DepositList
from firstlight.sealing.envelope import EnvelopeContent
from firstlight.sealing.inquiry import (
    Answer,
    Asked,
    Clearance,
    Cleared,
    DeviceLine,
    Ending,
    Holds,
    Question,
    Told,
    open_answer,
    sign_inquiry,
    unseal_inquiry,
)
from firstlight.sealing.locator import mailbox_locator, receipt_locator
from firstlight.sealing.padding import pad
from firstlight.sealing.receipt import Expected, Receipt, Step, open_receipt
from firstlight.sealing.stream import manifest_info, open_stream
from firstlight.sim import aka, attach, attach_device, attach_network
from firstlight.sim.aka import Sequence
from firstlight.sim.subscription import Credentials, SoftSim
from firstlight.sim.suci import Suci
from firstlight.testing.chains import GENESIS
from firstlight.testing.random import SeededRandom
from firstlight.trees import ownership, sparse
from firstlight.trees.ownership import OwnershipProof, Selection
from firstlight.trees.sparse import Multiproof

Given = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Vector:
    """One example: ``data`` is CBOR of type ``kind`` and ``rule``; ``given`` is what it is made from or leads to."""

    file: str
    name: str
    about: str
    data: bytes = b""
    kind: Any = None
    rule: str = ""
    given: Given = field(default_factory=dict)

    @property
    def notation(self) -> str:
        """The diagnostic notation of ``data``."""
        return diagnose(self.data, self.kind) if self.kind is not None else ""

    def as_json(self) -> dict[str, Any]:
        """Return what stands in the file."""
        found: dict[str, Any] = {"name": self.name, "about": self.about}
        if self.rule:
            found["rule"] = self.rule
        if self.data:
            found["bytes"] = self.data.hex()
        if self.notation:
            found["diagnostic"] = self.notation
        return found | {key: plain(one) for key, one in self.given.items()}


def plain(value: Any) -> Any:
    """Return a value as JSON has it: bytes in hexadecimal."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, Mapping):
        return {key: plain(one) for key, one in value.items()}
    return value


@cache
def all_vectors() -> tuple[Vector, ...]:
    """Return every example."""
    world = World()
    journey = Journey(world)
    found = [
        *_encoding(),
        *_signing(world),
        *_trees(world),
        *_identity(world, journey),
        *_manifest(world),
        *_records(world),
        *_transactions(world),
        *_governance(world),
        *_plan(world),
        *_mail(world, journey),
        *_discovery(world, journey),
        *_onboarding("network", world.mno, world, journey, journey.network),
        *_onboarding("service", world.sp, world, journey, journey.service),
        *_errors(),
        *_attestation(world),
        *_attach(world, journey),
        *_receipt(world, journey),
        *_http(world, journey),
    ]
    return (*found, *_keys())


def files() -> dict[str, str]:
    """Return the text of every file of vectors by its name."""
    found: dict[str, str] = {}
    for name, group in groupby(sorted(all_vectors(), key=lambda one: one.file), key=lambda one: one.file):
        value = {"made by": "python -m scripts.protocol", "vectors": [one.as_json() for one in group]}
        found[f"{name}.json"] = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    return found


def find(name: str) -> Vector:
    """Return an example by ``file/name``."""
    return next(one for one in all_vectors() if f"{one.file}/{one.name}" == name)


# --- ground -----------------------------------------------------------------------------------


def _encoding() -> Iterator[Vector]:
    cases = {
        "shortest-integer": ("1803", "three, in two bytes"),
        "integer": ("1818", "twenty-four"),
        "indefinite-array": ("9f01ff", "an array of indefinite length"),
        "indefinite-bytes": ("5f4101ff", "a byte string of indefinite length"),
        "float": ("f93c00", "a floating-point number"),
        "undefined": ("f7", "undefined"),
        "tag": ("c11a6b49d200", "a tag where none is expected"),
        "big-integer": ("c249010000000000000000", "an integer beyond 64 bits"),
        "map-in-order": ("a201010202", "keys ascend by their bytes"),
        "map-out-of-order": ("a202020101", "keys do not ascend"),
        "map-doubled-key": ("a201010102", "a key stands twice"),
        "left-over": ("0101", "a byte is left over"),
        "cut-short": ("4301", "a byte string is cut short"),
        "not-utf8": ("61ff", "text that is not UTF-8"),
    }
    for name, (data, about) in cases.items():
        try:
            decode(bytes.fromhex(data))
            verdict = "accepted"
        except FirstlightError as error:
            verdict = error.code
        yield Vector("encoding", name, about, bytes.fromhex(data), given={"verdict": verdict})


def _signing(world: World) -> Iterator[Vector]:
    key = Key("signing example")
    signed = cose.sign1(encode(["example"]), typ="application/firstlight-order+cbor", signer=key)
    body = cose.parse(signed, typ="application/firstlight-order+cbor").body
    yield Vector(
        "cose",
        "sign1",
        "a COSE_Sign1; the k of the signature is that of RFC 6979, any other k will do",
        signed,
        sign1(None),
        given={
            "key": key.public,
            "kid": p256.kid(key.public),
            "to be signed": encode(["Signature1", body, b"", encode(["example"])]),
            "id": cose.parse(signed, typ="application/firstlight-order+cbor").id,
        },
    )
    root = world.consortium.signed_root()
    yield Vector("cose", "sign", "a COSE_Sign by three keys", root, many(RootStatement), "signed-root")


def _keys() -> Iterator[Vector]:
    for name, key in sorted(MADE.items()):
        given = {"private": key.scalar, "public": key.public, "kid": p256.kid(key.public)}
        yield Vector("keys", name, "a P-256 key of these examples", given=given)
    yield Vector("keys", "validator", "the Ed25519 key of the one validator", given={
        "public": World().consortium.validators[0].public,
        "private": hashlib.sha256(b"ed25519 example validator").digest(),
    })  # fmt: skip


def _trees(world: World) -> Iterator[Vector]:
    tree, hashes = world.tree, [leaf.hash() for leaf in world.leaves]
    yield Vector(
        "trees",
        "rfc6962",
        "the batch's five leaves; the fifth has no sibling until the last level",
        given={
            "leaf hashes": hashes,
            "root": tree.root,
            "paths": [tree.path(index) for index in range(SIZE)],
            "multiproof of 1, 2, 3": tree.multiproof([1, 2, 3]),
        },
    )
    names = {"a": b"one", "b": b"two", "c": b"three"}
    state = sparse.Tree.empty().update({tree_key(name): value for name, value in names.items()})
    asked = sorted([tree_key("a"), tree_key("absent")])
    proof = state.prove(asked)
    sparse.verify(state.root, {tree_key("a"): b"one", tree_key("absent"): None}, proof)
    yield Vector(
        "trees",
        "multiproof",
        "a tree of three records: one is there, another is not",
        proof.encode(),
        Multiproof,
        "multiproof",
        {
            "records": {name: {"key": tree_key(name), "value": value} for name, value in names.items()},
            "claims": {tree_key("a").hex(): b"one", tree_key("absent").hex(): None},
            "root": state.root,
            "empty root": sparse.EMPTY,
        },
    )
    trie = world.ledger.state.trie(world.batch)
    assert trie is not None
    for name, about, bits, length in (
        ("uniform", "devices 2 and 3 (prefix 01) are tenure 2's", 1, 2),
        ("uniform-above", "device 2 alone (prefix 010): the node above it answers", 2, 3),
        ("split", "devices 0 to 3 (prefix 0) are not all in one tenure: ask longer", 0, 1),
    ):
        shown = trie.prove(bits, length)
        ownership.verify(trie.root, SIZE, bits, length, shown)
        given = {"size": SIZE, "prefix bits": bits, "prefix length": length, "root": trie.root}
        yield Vector("trees", f"ownership-{name}", about, shown.encode(), OwnershipProof, "ownership-proof", given)
    selection = Selection.of([(1, 3), (10, 1), (300, 1000)])
    yield Vector(
        "trees",
        "selection",
        "devices 1 to 3, 10 and 300 to 1299",
        selection.encode(),
        Selection,
        "selection",
        {"runs as (first, length)": [list(run) for run in selection.runs()]},
    )


def _identity(world: World, journey: Journey) -> Iterator[Vector]:
    leaf = journey.leaf
    yield Vector(
        "identity",
        "leaf",
        "the opening of device 2's leaf",
        leaf.encode(),
        Leaf,
        "leaf",
        {
            "batch secret": world.secret,
            "index": INDEX,
            "mailbox secret": journey.mailbox,
            "input": leaf.input(),
            "hash": leaf.hash(),
            "kid": leaf.kid,
            "root": world.tree.root,
        },
    )
    given = {"batch id from": encode(["firstlight-batch-1", CHAIN, world.manufacturer, SIZE, MODEL, world.tree.root])}
    birth = journey.birth.encode()
    yield Vector("identity", "birth", "device 2's birth credential", birth, BirthCredential, "birth-credential", given)
    ccs = Members({2: "sub", 8: "cnf"})
    yield Vector(
        "identity",
        "device-credential",
        "CRED_I of device 2",
        device_credential(leaf.identity, leaf.kid),
        ccs,
        "device-credential",
        {"id_cred": id_cred(leaf.kid)},
    )
    key = Key("network, key agreement").public
    yield Vector(
        "identity",
        "party-credential",
        "CRED_R of the network",
        party_credential(CHAIN, world.mno, key),
        ccs,
        "party-credential",
        {"party": world.mno, "key": key, "id_cred": id_cred(p256.kid(key))},
    )


def _manifest(world: World) -> Iterator[Vector]:
    entries = [
        Entry(
            index, leaf.salt, leaf.identity, leaf.attestation, Journey(world).mailbox if index == INDEX else named("m")
        )
        for index, leaf in enumerate(world.leaves)
        if index in (1, 2, 3)
    ]
    manifest = Manifest.build((CHAIN, world.batch, MODEL), entries, world.tree)
    manifest.verify(world.tree.root, SIZE)
    chunks = list(manifest.chunks())
    yield Vector(
        "manifest",
        "head",
        "the first of three chunks: devices 1 to 3",
        chunks[0],
        Head,
        "manifest-head",
        {"second chunk, the multiproof": chunks[1], "third chunk, the rows": chunks[2]},
    )
    buyer, info = Key("manifest key of the buyer"), manifest_info(CHAIN, world.batch)
    sealed = _sealed_stream(chunks, buyer, info)
    assert list(open_stream([sealed], buyer, info=info)) == chunks
    ephemeral = Key("ephemeral key of the manifest").scalar
    given = {"recipient": buyer.public, "info": info, "ephemeral": ephemeral, "sealed": sealed}
    yield Vector("manifest", "stream", "the chunks, sealed to the buyer", given=given)


def _sealed_stream(chunks: list[bytes], buyer: Key, info: bytes) -> bytes:
    ephemeral = Key("ephemeral key of the manifest").private
    enc, context = hpke.setup_sender(buyer.public, info, ephemeral=ephemeral)
    stream = enc
    for number, chunk in enumerate(chunks):
        sealed = context.seal(chunk, b"\x01" if number == len(chunks) - 1 else b"\x00")
        stream += len(sealed).to_bytes(4) + sealed
    return stream


# --- ledger -----------------------------------------------------------------------------------


def _records(world: World) -> Iterator[Vector]:
    state = world.ledger.state
    published = world.reference
    for name, key, kind in (
        ("party", records.party_name(world.mno), records.Party),
        ("batch", records.batch_name(world.batch), records.Batch),
        ("tenure-1", records.tenure_name(world.batch, 1), records.Tenure),
        ("tenure-2", records.tenure_name(world.batch, 2), records.Tenure),
        (
            "reference",
            records.reference_name(world.manufacturer, MODEL, published.identifier),
            records.Reference,
        ),
        ("governance", records.GOVERNANCE, records.Governance),
    ):
        value = state.value(key)
        assert value is not None
        rule = NAMES.get(kind, kind.__name__.lower())
        yield Vector("records", name, f"the record {key}", value, kind, rule, {"record": key, "key": tree_key(key)})
    digest = hashlib.sha256(b"firmware").digest()
    revoked = records.Revocation(records.RevocationKind.FIRMWARE, GENESIS)
    name = records.revocation_name(world.manufacturer, digest)
    given = {"record": name, "key": tree_key(name)}
    yield Vector("records", "revocation", f"the record {name}", revoked.encode(), type(revoked), "revocation", given)


def _transactions(world: World) -> Iterator[Vector]:
    for name, (data, kind) in world.transactions.items():
        yield _transaction(name.replace(" ", "-"), f"{name}, as it was accepted", data, kind)
    for body in _bodies(world):
        label = body.KIND.label
        data = build(body, chain=CHAIN, sequence=1, signer=Key("any key"))
        yield _transaction(label, f"{label}: its form; no rule was asked", data, type(body))


def _transaction(name: str, about: str, data: bytes, kind: type[Body]) -> Vector:
    content = Items(("chain", "kind", "sequence", "body"), (None, None, None, kind))
    shape = many(content) if kind.MANY else sign1(content)
    return Vector("transactions", name, about, data, shape, "signed-transaction", {"id": parse(data).id})


def _bodies(world: World) -> Iterator[Body]:
    batch, party = world.batch, world.mno
    some, digest = Selection.of([2]), named("some digest")
    yield UpdateParty(party, 2, None, ("https://elsewhere.example",), Rotation(Key("another key").public, digest))
    yield SuspendParty(party, records.PartyStatus.SUSPENDED)
    yield AddBudget(batch, 1000)
    yield Withdraw(batch, 2)
    yield Freeze(batch, 2, some)
    yield Unfreeze(batch, 3, some)
    yield Retire(batch, 2, some)
    yield Recover(batch, 2, Key("recovery 2").public, Key("tenure 2, recovered").public, digest)
    revoked = Revoked(records.RevocationKind.FIRMWARE, hashlib.sha256(b"firmware").digest())
    yield RevokeReference(world.manufacturer, None, revoked)
    yield SetEpoch(world.consortium.signed_epoch())
    yield RotateRoot(world.consortium.signed_root(), world.consortium.signed_epoch())


def _governance(world: World) -> Iterator[Vector]:
    consortium = world.consortium
    yield Vector(
        "governance",
        "root",
        "version 1: two of three keys",
        consortium.signed_root(),
        many(RootStatement),
        "signed-root",
        {"hash": consortium.root.hash()},
    )
    yield Vector(
        "governance",
        "epoch",
        "epoch 1: one validator, two of three witnesses",
        consortium.signed_epoch(),
        many(EpochStatement),
        "signed-epoch",
        {"hash": consortium.epoch.hash()},
    )
    made = Genesis(
        CHAIN, GENESIS * 10**9, consortium.signed_root(), consortium.signed_epoch(), consortium.validator_set
    )
    yield Vector("governance", "genesis", "what a chain begins with", made.encode(), Genesis, "genesis")


# --- from owner to device -----------------------------------------------------------------------


def _plan(world: World) -> Iterator[Vector]:
    plan = world.plan
    given = {"digest": plan.profile.digest(), "digests": plan.digests, "plan root": plan.root}
    profile = plan.profile.encode()
    yield Vector("plan", "profile", "the owner's profile", profile, ProfileClaim, "profile-claim", given)
    claim, opening = world.network_claim, plan.opening(world.network_claim)
    given = {"digest": claim.digest()}
    yield Vector("plan", "network", "the claim for the network", claim.encode(), PartyClaim, "party-claim", given)
    given = {"plan root": plan.root}
    yield Vector("plan", "opening", "what the network is shown", opening.encode(), PlanOpening, "plan-opening", given)
    signed = sign_order(world.order, world.owner)
    open_order(signed, key=world.owner.public, chain=CHAIN, party=world.mno, now=NOW)
    about = "what the owner agrees with the network"
    yield Vector("plan", "order", about, signed, sign1(Order), "signed-order", {"key": world.owner.public})
    yield from _inquiries(world)


def _inquiries(world: World) -> Iterator[Vector]:
    reply, agreement, order = Key("reply key"), Key("mno, key agreement"), world.order
    place = (CHAIN, world.mno, world.batch, 2)
    words: tuple[Question | Clearance, ...] = (
        Question(*place, order.number, 0, named("nonce of the question")[:16], NOW, reply.public),
        Clearance(*place, INDEX, NOW * 1_000_000_000, named("nonce of the clearance")[:16], NOW, reply.public),
    )
    line = DeviceLine(INDEX, Holds.CONFIRMED, 2, NOW + 86_400, NOW, NOW, NOW, Ending.SUPERSEDED, "", 0, 0)
    answers: tuple[Answer, ...] = (
        Told(True, order.devices, 1, order.until, 0, 1, 0, 0, (), (line,), None),
        Cleared(stood=True),
    )
    for said, answer, about in zip(words, answers, ("what has become of the order", "the alarm is over"), strict=True):
        name = type(said).__name__.lower()
        signed = sign_inquiry(said, world.owner)
        info = encode(["firstlight-asked-1", CHAIN, world.mno])
        ephemeral, back = Key(f"ephemeral key of the {name}"), Key(f"ephemeral key of the answer to the {name}")
        plain = pad(signed, inquiry.PLAIN_SIZE)
        sealed = seal(agreement.public, plain, info, ephemeral)
        typ = inquiry.QUESTION if isinstance(said, Question) else inquiry.CLEARANCE
        asked = unseal_inquiry(sealed, agreement, typ=typ, chain=CHAIN, party=world.mno)
        assert asked == Asked(said, signed)
        answer_info = encode(["firstlight-answered-1", CHAIN, world.mno, hashlib.sha256(signed).digest()])
        answered = seal(reply.public, pad(answer.encode(), inquiry.ANSWER_SIZES[0]), answer_info, back)
        assert open_answer(answered, reply, asked=asked) == answer
        given = {
            "recipient": agreement.public,
            "info": info,
            "ephemeral": ephemeral.scalar,
            "sealed": sealed,
            "reply": reply.scalar,
            "answer's info": answer_info,
            "answer's ephemeral": back.scalar,
            "sealed answer": answered,
        }
        yield Vector("plan", name, about, signed, sign1(type(said)), f"signed-{name}", given)
        rule = type(answer).__name__.lower()
        yield Vector("plan", rule, f"the answer to the {name}", answer.encode(), type(answer), rule)


def _mail(world: World, journey: Journey) -> Iterator[Vector]:
    given = {
        "mailbox secret": journey.mailbox,
        "gateway": GATEWAY,
        "envelopes": mailbox_locator(journey.mailbox, GATEWAY),
        "receipts": receipt_locator(journey.mailbox, GATEWAY),
    }
    yield Vector("mail", "locators", "where device 2's mail lies", given=given)
    yield Vector(
        "mail",
        "envelope-content",
        "what the envelope holds",
        journey.content.encode(),
        EnvelopeContent,
        "envelope-content",
    )
    yield Vector(
        "mail",
        "envelope",
        "the content, padded and sealed",
        given={
            "recipient": journey.identity.public,
            "info": envelope_info(journey.locator),
            "ephemeral": Key("ephemeral key of the envelope").scalar,
            "plaintext": journey.content.padded(),
            "sealed": journey.envelope,
        },
    )
    signed = cose.sign1(journey.deposit.encode(), typ=deposit.TYP, signer=world.owner)
    deposit.parse_deposit(signed).verify(key=world.owner.public, chain=CHAIN, gateway=GATEWAY)
    yield Vector("mail", "deposit", "a deposit of one envelope", signed, sign1(DepositList), "signed-deposit")


def _discovery(world: World, journey: Journey) -> Iterator[Vector]:
    request, block, consortium = journey.request, journey.block, world.consortium
    yield Vector("discovery", "request", "device 2 asks", request.encode(), BundleRequest, "bundle-request")
    bundle = journey.bundle
    assert bundle.freshness is not None
    statement = WitnessStatement(
        CHAIN, block.header.height, block.header.hash(), NOW, bundle.freshness.nonce.root(request.nonce)
    )
    yield Vector(
        "discovery",
        "bundle",
        "the gateway's answer",
        bundle.encode(),
        Bundle,
        "bundle",
        {
            "names": proven_names(request, bundle.state.tenures),
            "header's leaves": block.header.leaves(),
            "header hash": block.header.hash(),
            "validators hash": consortium.validator_set.hash(),
            "vote": vote_sign_bytes(
                CHAIN,
                height=block.commit.height,
                round_=block.commit.round,
                block=block.id,
                time=block.commit.signatures[0].time,
            ),
            "app hash": block.header.app_hash,
        },
    )
    name = "witness-statement"
    about = "what each of the two witnesses signed"
    yield Vector("discovery", name, about, statement.encode(), WitnessStatement, "witness-statement")
    follow = BundleRequest(named("unused"), block.header.height, 1, 1, None, 0, 0, (records.party_name(world.sp),))
    state = prove_state(world.ledger.state.tree, None, follow)
    yield Vector(
        "discovery", "follow-up-request", "more under the same head", follow.encode(), BundleRequest, "bundle-request"
    )
    yield Vector("discovery", "follow-up", "the answer to that", state.encode(), StateProof, "state-proof")


# --- onboarding -------------------------------------------------------------------------------


def _onboarding(name: str, party: bytes, world: World, journey: Journey, exchange: Exchange) -> Iterator[Vector]:
    file, session = f"onboarding-{name}", exchange.sent.session
    ephemeral = named(f"ephemeral key for the {name}")
    yield Vector(
        file,
        "messages",
        f"all that crosses between device 2 and the {name}; the token is the party's own affair",
        given={
            "x": ephemeral,
            "static key of the party": Key(f"{name}, key agreement").scalar,
            "request 1": exchange.request_1,
            "response 1": exchange.response_1,
            "request 2": exchange.sent.request_2,
            "response 2": exchange.response_2,
            "TH_3": session.th_3,
            "TH_4": session.th_4,
            "PRK_4e3m": session.prk_4e3m,
            "PRK_exporter": session.prk_exporter,
        },
    )
    found = journey.discovered
    record = world.ledger.party(party)
    opening = world.plan.opening(world.network_claim if name == "network" else world.service_claim)
    claim = Claim(
        world.batch,
        INDEX,
        journey.leaf,
        world.tree.path(INDEX),
        opening,
        found.view.height,
        found.standing.number,
        found.standing.plan_revision,
        record.revision,
        None,
    )
    leaf = journey.leaf
    cred_i = device_credential(leaf.identity, leaf.kid)
    hashes = [hashlib.sha256(claim.encode()).digest(), hashlib.sha256(exchange.request).digest()]
    preimage = encode([session.th_3, messages.EVIDENCE_LABEL, id_cred(leaf.kid), cred_i, *hashes])
    assert hashlib.sha256(preimage).digest() == exchange.nonce
    yield Vector(file, "claim", "EAD 65002 of message 3", claim.encode(), Claim, "claim")
    yield Vector(file, "evidence", "EAD 65003 of message 3", exchange.evidence, sign1(EVIDENCE), "signed-evidence", {
        "typ": EVIDENCE_TYP,
        "nonce from": preimage,
        "nonce": exchange.nonce,
        "pseudonym": pseudonym(journey.mailbox, party),
    })  # fmt: skip
    if exchange.request:
        yield Vector(file, "request", "EAD 65004 of message 3: a PKCS #10 request in DER", exchange.request)
    grant = exchange.granted.grant
    kind = SimGrant if name == "network" else X509Grant
    shape = Items(("id", "kind", "issued-at", "expires", "body"), (None, None, None, None, kind))
    given: dict[str, Any] = {}
    if name == "network":
        k, opc = exchange.granted.subscription_keys(CHAIN, party)
        context = [encode([CHAIN, party, f"imsi-{IMSI}", which]) for which in ("K", "OPc")]
        given = {"context of K": context[0], "K": k, "context of OPc": context[1], "OPc": opc}
    yield Vector(file, "grant", "EAD 65005 of message 4", grant.encode(), shape, "grant", given)


EVIDENCE = Members(
    {
        10: "eat_nonce",
        257: "sueids",
        258: "oemid",
        259: "hwmodel",
        260: "hwversion",
        262: "oemboot",
        263: "dbgstat",
        265: "eat_profile",
        267: "bootcount",
        268: "bootseed",
        271: "swversion",
        273: "measurements",
        -70001: "reference",
    }
)


def _errors() -> Iterator[Vector]:
    refusal = Refusal("stale-view").encode()
    ead = edhoc.encode_ead([edhoc.Ead(messages.EAD_REFUSAL, True, refusal)])
    about = "EAD 65006 of message 4"
    yield Vector("refusals", "refusal", about, refusal, Refusal, "ead-refusal", {"plaintext of message 4": ead})
    yield Vector("refusals", "error", "the error that everybody gets until MAC_3 holds", UNIFORM_ERROR)
    suites = ErrorMessage(WRONG_SUITE, suites=(3, 2)).encode()
    yield Vector("refusals", "wrong-suite", "the error that names the party's suites", suites)
    assert encode_sequence(1, "refused") == UNIFORM_ERROR


def _attestation(world: World) -> Iterator[Vector]:
    body = world.reference_body
    given = {"digest": body_digest(body), "key": world.makers["manufacturer"].public}
    yield Vector("attestation", "reference", "a set of reference values", body, sign1(None), "signed-reference", given)
    one = world.measured[0]
    yield Vector("attestation", "measurement", "one measurement", one.encode(), Measurement, "measurement")
    name = ReferenceName(world.manufacturer, world.reference.identifier)
    yield Vector("attestation", "reference-name", "names that set", name.encode(), ReferenceName, "reference-name")


# --- connecting -------------------------------------------------------------------------------


def _attach(world: World, journey: Journey) -> Iterator[Vector]:
    k, opc = journey.network.granted.subscription_keys(CHAIN, world.mno)
    sim = SoftSim(Credentials(IMSI, k, opc), world.home, "WLAN", "tcp://access.example:4500", Sequence.fresh())
    identity = attach_device.identify(sim, SeededRandom("example attach"))
    assert attach_network.identify(identity.suci, {1: world.home_key}) == IMSI
    vector = aka.make_vector(k, opc, 33, named("RAND")[:16])
    pending = attach_network.challenge(IMSI, identity, vector, "WLAN")
    answered = attach_device.respond(sim, identity, pending.challenge)
    assert isinstance(answered, attach_device.Answered)
    attach_network.check(pending, answered.response)
    success = attach_network.succeed(
        pending, answered.response, named("session")[:16], "socks5://access.example:1080", 86_400
    )
    session = attach_device.conclude(answered, success)
    keys = answered.keys
    stale = attach.SyncFailure(aka.make_auts(k, opc, vector.rand, 65))
    given = {"IMSI": IMSI, "home network key (private)": world.home_key.private}
    yield Vector("attach", "suci", "the concealed IMSI", identity.suci.encode(), Suci, "suci", given)
    shown: list[tuple[attach.Message, str, Given]] = [
        (identity, "the device's first message", {}),
        (
            pending.challenge,
            "the network's challenge",
            {
                "K": k,
                "OPc": opc,
                "SQN": 33,
                "CK": vector.ck,
                "IK": vector.ik,
                "XRES": vector.xres,
                "K_aut": keys.k_aut,
                "MSK": keys.msk,
            },
        ),
        (answered.response, "the device's response", {}),
        (success, "the port is open", {"password for the forwarder": session.proof}),
        (stale, "in place of the response: SQN_MS is 65", {}),
        (attach.Reject(), "in place of the response: not my network", {}),
        (attach.Refusal(), "in place of challenge or success", {}),
        (session.detach, "the device leaves", {}),
        (attach.Detached(), "and is told that it has", {}),
    ]
    for message, about, more in shown:
        rule = NAMES[type(message)]
        frame = attach.frame(message)
        data = message.encode()
        yield Vector("attach", rule.removeprefix("attach-"), about, data, type(message), rule, {"frame": frame, **more})


def _receipt(world: World, journey: Journey) -> Iterator[Vector]:
    locator = receipt_locator(journey.mailbox, GATEWAY)
    grant = journey.network.granted.grant.id
    said = Receipt(CHAIN, world.batch, INDEX, 2, 1, world.mno, grant, Step.NETWORK_ATTACHED, 1, NOW + 2)
    signed = cose.sign1(said.encode(), typ=receipt.TYP, signer=journey.attester)
    info = encode(["firstlight-receipt-1", CHAIN, locator])
    plain = pad(signed, receipt.PLAIN_SIZE)
    ephemeral = Key("ephemeral key of the receipt")
    sealed = seal(world.receipt_key.public, plain, info, ephemeral)
    expected = Expected(CHAIN, locator, world.batch, INDEX, journey.attester.public, {2})
    assert open_receipt(sealed, world.receipt_key, expected) == said
    yield Vector(
        "receipt",
        "receipt",
        "device 2 has attached",
        signed,
        sign1(Receipt),
        "signed-receipt",
        {
            "recipient": world.receipt_key.public,
            "info": info,
            "ephemeral": ephemeral.scalar,
            "plaintext": plain,
            "sealed": sealed,
        },
    )


def _http(world: World, journey: Journey) -> Iterator[Vector]:
    sealed = find_in(_receipt(world, journey), "receipt").given["sealed"]
    header = journey.block.header
    statement = WitnessRequest(CHAIN, header.height, named("nonce root"))
    purchase = trade.Purchase(CHAIN, world.owner.public, Key("manifest key of the buyer").public)
    offer = parse(world.transactions["offer"][0]).id
    sale = trade.Sale(CHAIN, offer, world.batch, 2, world.owner.public)
    shown: list[tuple[Record, str, str]] = [
        (wire.MailRequest((journey.locator,)), "mail-request", "to a gateway"),
        (wire.MailAnswer(()), "mail-answer", "nothing lies there"),
        (wire.ReceiptPut(receipt_locator(journey.mailbox, GATEWAY), sealed), "receipt-put", "to a gateway"),
        (wire.DepositAnswer(1), "deposit-answer", "from a gateway"),
        (statement, "witness-request", "to a witness"),
        (messages.Head(header.height), "ead-head", "EAD 65001 of message 2"),
        (purchase, "purchase", "from buyer to seller"),
        (sale, "sale", "from seller to buyer; the sealed manifest follows"),
    ]
    for value, rule, about in shown:
        yield Vector("http", rule, about, value.encode(), type(value), rule)


def find_in(found: Iterator[Vector], name: str) -> Vector:
    """Return the example of that name."""
    return next(one for one in found if one.name == name)


def rules_shown() -> set[str]:
    """Return the rules of which there is an example."""
    return {one.rule for one in all_vectors() if one.rule}


def kinds_shown() -> set[Kind]:
    """Return the kinds of transaction of which there is an example."""
    return {parse(one.data).kind for one in all_vectors() if one.rule == "signed-transaction"}


def records_shown() -> set[type[Record]]:
    """Return the records of which there is an example by themselves."""
    return {one.kind for one in all_vectors() if isinstance(one.kind, type) and issubclass(one.kind, Record)}
