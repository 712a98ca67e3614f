"""Which rules stand in which section of the page, and the few that no class defines by itself."""

from __future__ import annotations

from collections.abc import Mapping

from scripts.protocol.cddl import Entry, Rules, kebab

from firstlight.attestation import evidence
from firstlight.chain import block, commit, root, witness
from firstlight.discovery import bundle, machine
from firstlight.engines import port
from firstlight.identity import birth, manifest
from firstlight.ledger import records, transaction
from firstlight.ledger.transaction import BODIES, Kind
from firstlight.onboarding import messages
from firstlight.plan import claims, order
from firstlight.roles import trade, wire
from firstlight.sealing import deposit, envelope, inquiry, receipt
from firstlight.sim import aka, attach, naming, suci
from firstlight.trees import ownership, sparse

PRELUDE = """
    bytes8 = bytes .size 8
    bytes16 = bytes .size 16 ; ids of parties, batches, orders, grants; salts; locators
    bytes32 = bytes .size 32 ; SHA-256; secrets
    bytes33 = bytes .size 33 ; P-256 public key, SEC 1 compressed
    bytes64 = bytes .size 64 ; x || y of a P-256 key; r || s of a signature
    chain-id = tstr .regexp "[a-z0-9][a-z0-9.-]{0,39}"
    seconds = 0..1099511627776 ; Unix time or a span, in seconds
    uint32 = 0..4294967295
    model = bytes .size (1..32) ; a hardware model
    uri-text = tstr .regexp "[a-z][a-z0-9+.-]{1,11}://[A-Za-z0-9.\\\\-\\\\[\\\\]:]{1,80}(/[A-Za-z0-9._~/-]{0,60})?"
"""

COSE = """
    ; what an object holds is the deterministic CBOR of `content`, in a byte string
    sign1<content, typ> = [
      protected: bytes .cbor {1: -7, 4: bytes8, 16: typ},
      unprotected: {},
      payload: bytes .cbor content,
      signature: bytes64,
    ]

    many<content, typ> = [
      protected: bytes .cbor {16: typ},
      unprotected: {},
      payload: bytes .cbor content,
      signatures: [1*32 [protected: bytes .cbor {1: -7, 4: bytes8}, unprotected: {}, signature: bytes64]],
    ]
"""

SIGNED_STATEMENTS = """
    signed-root = many<root-statement, "application/firstlight-root+cbor">

    signed-epoch = many<epoch-statement, "application/firstlight-epoch+cbor">
"""

CREDENTIALS = """
    ; CRED_I: the CWT claims set of a device; kid is the first 16 bytes of its leaf's hash
    device-credential = {8: {1: cose-key<bytes16>}}

    ; CRED_R: that of a party; subject is "<chain id>/<party id in lower-case hexadecimal>", kid SHA-256(key)[:8]
    party-credential = {2: tstr, 8: {1: cose-key<bytes8>}}

    cose-key<kid> = {1: 2, 2: kid, -1: 1, -2: bytes32, -3: bytes32}

    ; ID_CRED_I and ID_CRED_R as they go into MACs and into the evidence nonce
    id-cred = {4: bytes8 / bytes16}
"""

EAT = """
    signed-evidence = sign1<evidence-claims, "application/eat+cwt">

    ; all of these, and nothing else
    evidence-claims = {
      10 => bytes32,                            ; eat_nonce: the evidence nonce of the exchange
      257 => {"firstlight" => bytes .size 17},  ; sueids: 0x01 || pseudonym (16 bytes)
      258 => bytes16,                           ; oemid: the batch's issuer
      259 => model,                             ; hwmodel: as in the leaf
      260 => [eat-version],                     ; hwversion
      262 => bool,                              ; oemboot: secure boot is on
      263 => 0..4,                              ; dbgstat; 0: debugging is enabled
      265 => tstr,                              ; eat_profile: "tag:firstlight.example,2026:eat/1"
      267 => uint,                              ; bootcount
      268 => bytes16,                           ; bootseed
      271 => [eat-version],                     ; swversion
      273 => [[65000, bytes .cbor [1*8 measurement]]], ; measurements, ascending by component
      -70001 => reference-name,                 ; the set that the device measures itself by
    }

    eat-version = tstr .regexp "[0-9A-Za-z][0-9A-Za-z.+-]{0,31}"
"""

CORIM = """
    signed-reference = sign1<corim, "application/rim+cbor">

    corim = #6.501({
      0 => bytes16,                                        ; the set's id
      1 => [#6.506(bytes .cbor comid)],
      3 => #6.32("tag:firstlight.example,2026:corim/1"),
      4 => {0 => #6.1(seconds), 1 => #6.1(seconds)},       ; valid from, until (inclusive)
    })

    comid = {
      1 => {0 => bytes16},                                 ; the same id
      4 => {0 => [[
        {0 => {0 => #6.560(model)}},         ; class: the hardware model
        [1*8 component],                                   ; ascending by name
      ]]},
    }

    component = {
      0 => tstr .regexp "[a-z0-9][a-z0-9.-]{0,31}",        ; its name
      1 => {
        1 => #6.553(uint),                                 ; the lowest security version that will do
        2 => [[1, bytes32]],                               ; SHA-256
      },
    }
"""

GRANT = """
    ; a credential (EAD_4): id, kind, issued at, expires (Unix seconds), body
    grant = [bytes16, 1, seconds, seconds, sim-grant] / [bytes16, 2, seconds, seconds, x509-grant]
"""

NAMES: Mapping[type, str] = {
    manifest.Head: "manifest-head",
    messages.Head: "ead-head",
    attach.Identity: "attach-identity",
    attach.Challenge: "attach-challenge",
    attach.Response: "attach-response",
    attach.SyncFailure: "attach-sync-failure",
    attach.Reject: "attach-reject",
    attach.Success: "attach-success",
    attach.Refusal: "attach-refusal",
    attach.Detach: "attach-detach",
    attach.Detached: "attach-detached",
    messages.X509Grant: "x509-grant",
    suci.HomeNetwork: "home-network",
    commit.Flag: "vote-flag",
    receipt.Step: "receipt-step",
    inquiry.Holds: "what-it-holds",
    transaction.Kind: "transaction-kind",
    messages.Refusal: "ead-refusal",
    **{body: f"{kebab(body.__name__)}-body" for body in BODIES.values()},
}


def _transaction(kind: Kind) -> str:
    body = BODIES[kind]
    form = "many" if body.MANY else "sign1"
    payload = f"[chain-id, {int(kind)}, uint32, {NAMES[body]}]"
    return f'{form}<{payload}, "{transaction.TYP}">'


TRANSACTIONS = "signed-transaction =\n  " + " /\n  ".join(_transaction(kind) for kind in Kind)

SECTIONS: Mapping[str, tuple[Entry, ...]] = {
    "prelude": (PRELUDE,),
    "cose": (COSE,),
    "trees": (
        sparse.Multiproof,
        sparse.Stranger,
        ownership.OwnershipProof,
        ownership.Selection,
    ),
    "identity": (birth.BirthCredential, birth.Leaf, CREDENTIALS),
    "manifest": (manifest.Head, trade.Purchase, trade.Sale),
    "records": (
        records.Party,
        records.Role,
        records.PartyStatus,
        records.Batch,
        records.Tenure,
        records.TenureState,
        records.Reference,
        records.ReferenceStatus,
        records.Revocation,
        records.RevocationKind,
        records.Governance,
    ),
    "transactions": (
        TRANSACTIONS,
        transaction.RegisterParty,
        transaction.UpdateParty,
        transaction.Rotation,
        transaction.SuspendParty,
        transaction.AnchorBatch,
        transaction.AddBudget,
        transaction.Offer,
        transaction.Accept,
        transaction.Withdraw,
        transaction.Deploy,
        transaction.Freeze,
        transaction.Unfreeze,
        transaction.Retire,
        transaction.Recover,
        transaction.PublishReference,
        transaction.RevokeReference,
        transaction.SetName,
        transaction.Revoked,
        transaction.SetEpoch,
        transaction.RotateRoot,
        transaction.Kind,
    ),
    "governance": (SIGNED_STATEMENTS, root.RootStatement, root.EpochStatement, port.Genesis),
    "head": (
        bundle.HeadProof,
        block.PartialHeader,
        commit.Votes,
        commit.CommitSig,
        commit.Flag,
        commit.ValidatorSet,
        commit.Validator,
    ),
    "witness": (
        bundle.Freshness,
        witness.NonceProof,
        witness.WitnessSignature,
        witness.WitnessStatement,
        witness.WitnessRequest,
    ),
    "bundle": (bundle.BundleRequest, bundle.Bundle, bundle.StateProof),
    "plan": (claims.ProfileClaim, claims.PartyClaim, claims.PartyKind, claims.PlanOpening),
    "order": (f'signed-order = sign1<order, "{order.TYP}">', order.Order),
    "envelope": (envelope.EnvelopeContent,),
    "deposit": (
        f'signed-deposit = sign1<deposit-list, "{deposit.TYP}">',
        deposit.DepositList,
        deposit.DepositEntry,
    ),
    "inquiry": (
        f'signed-question = sign1<question, "{inquiry.QUESTION}">',
        f'signed-clearance = sign1<clearance, "{inquiry.CLEARANCE}">',
        inquiry.Question,
        inquiry.Told,
        inquiry.DeviceLine,
        inquiry.Holds,
        inquiry.Ending,
        inquiry.RaisedAlarm,
        inquiry.Clearance,
        inquiry.Cleared,
    ),
    "receipt": (f'signed-receipt = sign1<receipt, "{receipt.TYP}">', receipt.Receipt, receipt.Step),
    "claim": (messages.Head, messages.Claim),
    "evidence": (EAT, evidence.Measurement, evidence.ReferenceName),
    "reference": (CORIM,),
    "grant": (GRANT, messages.SimGrant, suci.HomeNetwork, suci.Scheme, messages.X509Grant, messages.Refusal),
    "attach": (
        attach.Identity,
        suci.Suci,
        naming.OneTimeName,
        attach.Challenge,
        attach.Response,
        attach.SyncFailure,
        attach.Reject,
        attach.Success,
        attach.Refusal,
        attach.Detach,
        attach.Detached,
    ),
    "http": (
        wire.TransactionAnswer,
        wire.HeaderAnswer,
        block.Header,
        block.BlockId,
        commit.Commit,
        wire.ProofsRequest,
        wire.Proofs,
        wire.ProvenState,
        wire.DepositAnswer,
        wire.MailRequest,
        wire.MailAnswer,
        wire.ReceiptPut,
        wire.ReceiptQuery,
        wire.ReceiptFound,
        wire.ReceiptPage,
    ),
}

STAYS = {
    "Body": "an abstract base",
    "_Head": "what stands before a transaction's body; written out in signed-transaction",
    "_GrantHead": "what stands before a grant's body; written out in grant",
    "_Parsed": "an abstract base",
    "Grant": "written out in grant",
    "Evidence": "travels as evidence-claims",
    "ReferenceSet": "travels as a CoRIM",
    "Plan": "its owner's own file",
    "Trust": "a verifier's own file",
    "Mail": "what a device reads a mail-answer as; the same bytes",
    "PageRecord": "an engine's own storage",
    "TrustVector": "a party's own record",
    "Finding": "a party's own record",
    "AttestationResult": "a party's own record",
    "HalfOpen": "inside a token, which only its maker reads",
    "Sequence": "a USIM's own file",
    "Credentials": "a USIM's own file",
    "Subscription": "an operator's own record",
    "SoftSim": "a USIM's own file",
    "SimGrant": "a grant's content, as a USIM's file has it; the one that travels is in messages",
}
"""Records that stay where they are made, and so have no rule."""
PAGE_MODULES = (
    *(sparse, birth, manifest, records, transaction, block, commit, root, witness, bundle, machine, claims, order),
    *(envelope, deposit, inquiry, receipt, messages, evidence, aka, attach, suci, wire),
)

RULES = Rules(SECTIONS, NAMES)


def whole() -> str:
    """Return all rules as one CDDL file."""
    head = (
        "; Firstlight: every message and record. Made by `python -m scripts.protocol`; docs/protocol.md explains it.\n"
    )
    start = "; The first rule is what a file with nothing said about it would hold.\n"
    parts = [head + start + "firstlight = bundle / bundle-request / signed-transaction / birth-credential"]
    parts += [f"; --- {name} ---\n\n{RULES.section(name)}" for name in SECTIONS]
    return "\n\n".join(parts) + "\n"
