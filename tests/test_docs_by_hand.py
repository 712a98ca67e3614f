"""What the page on the protocol says, done by hand on its examples: CBOR, hashes and ciphers alone, nothing of ours.

Whoever changes a format finds out here that the page's sentences, which nothing generates, must change too.
"""

import hashlib
import hmac
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import cbor2
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESCCM, AESGCM
from cryptography.hazmat.primitives.hashes import SHA256

VECTORS = Path(__file__).parents[1] / "docs" / "vectors"
CHAIN = "example-1"
EMPTY = hashlib.sha256(b"\x02").digest()


def example(name: str) -> dict[str, Any]:
    file, _, which = name.partition("/")
    found = json.loads((VECTORS / f"{file}.json").read_text())["vectors"]
    return next(one for one in found if one["name"] == which)


def data(name: str, key: str = "bytes") -> bytes:
    return bytes.fromhex(example(name)[key])


def sha(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def dumps(value: object) -> bytes:
    return cbor2.dumps(value, canonical=True)


def split(packed: bytes) -> list[bytes]:
    return [packed[at : at + 32] for at in range(0, len(packed), 32)]


def verify(key: bytes, message: bytes, signature: bytes) -> None:
    point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), key)
    r, s = int.from_bytes(signature[:32]), int.from_bytes(signature[32:])
    point.verify(encode_dss_signature(r, s), message, ec.ECDSA(SHA256()))


# --- 2: trees -------------------------------------------------------------------------------------


def multiproof_root(leaves: dict[int, bytes], size: int, proof: list[bytes]) -> bytes:
    """2.1: level by level from the leaves up, left to right; a node without a sibling moves up."""
    rest = list(proof)
    while size > 1:
        above: dict[int, bytes] = {}
        for at in sorted(leaves):
            if at // 2 in above:
                continue
            if at ^ 1 >= size:
                above[at // 2] = leaves[at]
                continue
            other = leaves[at ^ 1] if at ^ 1 in leaves else rest.pop(0)
            left, right = (other, leaves[at]) if at & 1 else (leaves[at], other)
            above[at // 2] = sha(b"\x01", left, right)
        leaves, size = above, (size + 1) // 2
    assert not rest
    return leaves[0]


def gapped(packed: bytes) -> list[bytes]:
    """1.1: number of items, a bit for each, those that are not empty."""
    count = int.from_bytes(packed[:2])
    bitmap, at = packed[2 : 2 + (count + 7) // 8], 2 + (count + 7) // 8
    items = []
    for place in range(count):
        there = bitmap[place // 8] >> (7 - place % 8) & 1
        items.append(packed[at : at + 32 * there])
        at += 32 * there
    assert at == len(packed)
    return items


def bits_of(key: bytes) -> str:
    return f"{int.from_bytes(key):0256b}"


def state_root(claims: dict[bytes, bytes | None], proof: list[Any]) -> bytes:
    """2.2: places, then fold."""
    depths, strangers, packed = proof
    siblings, strangers, keys = gapped(packed), [list(one) for one in strangers], sorted(claims)
    places: list[tuple[str, int, bytes]] = []
    for depth in depths:
        prefix = bits_of(keys[0])[:depth]
        mine = [key for key in keys if bits_of(key).startswith(prefix)]
        keys = keys[len(mine) :]
        present = [key for key in mine if claims[key] is not None]
        assert len(present) <= 1
        if present:
            value = claims[present[0]]
            assert value is not None
            held = sha(b"\x00", present[0], sha(value))
        elif strangers and bits_of(strangers[0][0]).startswith(prefix):
            key, value_hash = strangers.pop(0)
            held = sha(b"\x00", key, value_hash)
        else:
            held = EMPTY
        places.append((bits_of(mine[0]), depth, held))
    assert not keys
    assert not strangers

    def fold(some: list[tuple[str, int, bytes]], depth: int) -> bytes:
        bits, at, current = some[0]
        if len(some) > 1:
            last = some[-1][0]
            at = next(place for place in range(256) if bits[place] != last[place])
            left = fold([one for one in some if one[0][at] == "0"], at + 1)
            right = fold([one for one in some if one[0][at] == "1"], at + 1)
            current = sha(b"\x01", left, right)
        for level in range(at, depth, -1):
            sibling = siblings.pop(0) or EMPTY
            pair = (sibling, current) if bits[level - 1] == "1" else (current, sibling)
            current = sha(b"\x01", *pair)
        return current

    root = fold(places, 0)
    assert not siblings
    return root


def owner_root(bits: int, proof: list[Any]) -> bytes:
    """2.3, for a prefix whose own node answers."""
    tenure, children, path = proof
    current = sha(b"\x01", children) if tenure is None else sha(b"\x00", tenure.to_bytes(4))
    for sibling in reversed(split(path)):
        current = sha(b"\x01", sibling, current) if bits & 1 else sha(b"\x01", current, sibling)
        bits >>= 1
    return current


def test_trees() -> None:
    tree = example("trees/rfc6962")
    leaves = {place: bytes.fromhex(tree["leaf hashes"][place]) for place in (1, 2, 3)}
    proof = [bytes.fromhex(one) for one in tree["multiproof of 1, 2, 3"]]
    assert multiproof_root(leaves, 5, proof).hex() == tree["root"]
    shown = example("trees/multiproof")
    claims = {bytes.fromhex(key): value and bytes.fromhex(value) for key, value in shown["claims"].items()}
    assert state_root(claims, cbor2.loads(data("trees/multiproof"))).hex() == shown["root"]
    for name, bits in (("uniform", 1), ("split", 0)):
        owned = example(f"trees/ownership-{name}")
        assert owner_root(bits, cbor2.loads(bytes.fromhex(owned["bytes"]))).hex() == owned["root"]


# --- 5: the bundle --------------------------------------------------------------------------------


def varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def stamp(time: int) -> bytes:
    seconds, nanos = divmod(time, 10**9)
    return b"\x08" + varint(seconds) + (b"\x10" + varint(nanos) if nanos else b"")


def sized(tag: bytes, value: bytes) -> bytes:
    return tag + varint(len(value)) + value


def tree_key(name: str) -> bytes:
    """4.1: a tenure's key begins like its batch's."""
    key = sha(name.encode())
    if not name.startswith("tenure/"):
        return key
    return sha(f"batch/{name.split('/')[1]}".encode())[:3] + key[3:]


def test_bundle() -> None:
    request, shown = cbor2.loads(data("discovery/request")), example("discovery/bundle")
    (_, epoch, header, votes, validators), (nonce, witnesses), state = cbor2.loads(data("discovery/bundle"))
    ((key, power),) = validators[0]
    powers = sha(b"\x00", b"\x0a\x22\x0a\x20" + key + b"\x10" + varint(power))
    block, app, height, time, app_hash, rest = header
    fields = {
        0: b"\x08" + varint(block) + b"\x10" + varint(app),
        1: sized(b"\x0a", CHAIN.encode()),
        2: b"\x08" + varint(height),
        3: stamp(time),
        7: b"\x0a\x20" + powers,
        10: b"\x0a\x20" + app_hash,
    }
    leaves = {place: sha(b"\x00", value) for place, value in fields.items()}
    header_hash = multiproof_root(leaves, 14, split(rest))
    assert header_hash.hex() == shown["header hash"]

    round_, parts, parts_hash, ((_, voted, signature),) = votes
    assert round_ == 0
    named = b"\x0a\x20" + header_hash + sized(b"\x12", b"\x08" + varint(parts) + b"\x12\x20" + parts_hash)
    vote = b"\x08\x02\x11" + height.to_bytes(8, "little") + sized(b"\x22", named)
    vote += sized(b"\x2a", stamp(voted)) + sized(b"\x32", CHAIN.encode())
    Ed25519PublicKey.from_public_bytes(key).verify(signature, varint(len(vote)) + vote)

    index, size, path = nonce
    root = multiproof_root({index: sha(b"\x00", request[0])}, size, split(path))
    keys = cbor2.loads(cbor2.loads(epoch)[2])[5]
    for place, said, signature in witnesses:
        typ = "application/firstlight-witness+cbor"
        protected = dumps({1: -7, 4: sha(keys[place])[:8], 16: typ})
        statement = dumps([CHAIN, height, header_hash, said, root])
        verify(keys[place], dumps(["Signature1", protected, b"", statement]), signature)

    tenures, values, proof, ownership = state
    batch = request[4].hex()
    names = ["governance", f"batch/{batch}", *(f"tenure/{batch}/{number}" for number in tenures), *request[7]]
    assert names == shown["names"]
    claims = dict(zip(map(tree_key, names), values, strict=True))
    assert state_root(claims, proof) == app_hash
    assert owner_root(request[5], ownership) == cbor2.loads(values[1])[4]


# --- 6: plan and envelope -------------------------------------------------------------------------


def labeled(suite: bytes, label: bytes, value: bytes) -> bytes:
    return b"HPKE-v1" + suite + label + value


def unsealed(private: bytes, sealed: bytes, info: bytes) -> bytes:
    """6.3: HPKE base mode, RFC 9180."""
    kem, suite = b"KEM\x00\x10", b"HPKE\x00\x10\x00\x01\x00\x01"

    def extract(salt: bytes, ikm: bytes) -> bytes:
        return hmac.digest(salt, ikm, "sha256")

    def expand(prk: bytes, of: bytes, label: bytes, value: bytes, length: int) -> bytes:
        block = length.to_bytes(2) + labeled(of, label, value) + b"\x01"
        return hmac.digest(prk, block, "sha256")[:length]

    own = ec.derive_private_key(int.from_bytes(private), ec.SECP256R1())
    numbers = own.public_key().public_numbers()
    public = b"\x04" + numbers.x.to_bytes(32) + numbers.y.to_bytes(32)
    enc = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), sealed[:65])
    dh = own.exchange(ec.ECDH(), enc)
    shared = expand(extract(b"", labeled(kem, b"eae_prk", dh)), kem, b"shared_secret", sealed[:65] + public, 32)
    hashes = [
        extract(b"", labeled(suite, label, value)) for label, value in ((b"psk_id_hash", b""), (b"info_hash", info))
    ]
    context = b"\x00" + b"".join(hashes)
    secret = extract(shared, labeled(suite, b"secret", b""))
    key, nonce = expand(secret, suite, b"key", context, 16), expand(secret, suite, b"base_nonce", context, 12)
    return AESGCM(key).decrypt(nonce, sealed[65:], b"")


def merkle(leaves: list[bytes]) -> bytes:
    return multiproof_root(dict(enumerate(sha(b"\x00", leaf) for leaf in leaves)), len(leaves), [])


def test_mail_and_plan() -> None:
    mailbox, gateway = data("mail/locators", "mailbox secret"), example("mail/locators")["gateway"].encode()
    locator = hmac.digest(mailbox, b"firstlight-envelopes-1\x00" + gateway, "sha256")[:16]
    private = data("keys/identity key of device 2", "private")
    info = dumps(["firstlight-envelope-1", CHAIN, locator])
    sealed = data("mail/envelope", "sealed")
    plain = unsealed(private, sealed, info)
    assert (len(sealed), len(plain)) == (2048, 1967)
    length = int.from_bytes(plain[:2])
    assert not any(plain[2 + length :])
    _, _, _, digests, claims = cbor2.loads(plain[2 : 2 + length])
    assert all(left < right for left, right in pairwise(split(digests)))
    tenure = cbor2.loads(data("records/tenure-2"))
    assert merkle(split(digests)) == tenure[4]
    shown = {sha(b"firstlight-claim-1", claim): cbor2.loads(claim) for claim in claims}
    assert set(shown) <= set(split(digests))
    (profile,) = [claim for claim in shown.values() if claim[1] == 0]
    assert set(split(profile[3])) == {digest for digest, claim in shown.items() if claim[1] != 0}


def test_receipt() -> None:
    private = data("keys/receipt key", "private")
    sealed, info = data("receipt/receipt", "sealed"), data("receipt/receipt", "info")
    plain = unsealed(private, sealed, info)
    assert (len(sealed), len(plain)) == (384, 303)
    assert plain[2 : 2 + int.from_bytes(plain[:2])] == data("receipt/receipt")


# --- 7: the exchange ------------------------------------------------------------------------------


def kdf(prk: bytes, label: int, context: bytes, length: int) -> bytes:
    info, block, out = dumps(label) + dumps(context) + dumps(length), b"", b""
    for counter in range(1, 255):
        block = hmac.digest(prk, block + info + bytes([counter]), "sha256")
        out += block
        if len(out) >= length:
            break
    return out[:length]


def extract(salt: bytes, secret: bytes) -> bytes:
    return hmac.digest(salt, secret, "sha256")


def ecdh(private: bytes, x: bytes) -> bytes:
    peer = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x02" + x)
    return ec.derive_private_key(int.from_bytes(private), ec.SECP256R1()).exchange(ec.ECDH(), peer)


def sequence(items: bytes) -> list[Any]:
    return list(cbor2.loads(b"\x9f" + items + b"\xff"))


def opened(prk: bytes, labels: tuple[int, int], th: bytes, ciphertext: bytes) -> bytes:
    key, nonce = kdf(prk, labels[0], th, 16), kdf(prk, labels[1], th, 13)
    return AESCCM(key, tag_length=8).decrypt(nonce, ciphertext, dumps(["Encrypt0", b"", th]))


def test_exchange() -> None:
    for name in ("network", "service"):
        said = {
            key: bytes.fromhex(one)
            for key, one in example(f"onboarding-{name}/messages").items()
            if key[-1] in "12xy34r"
        }
        exchange(name, said)


def exchange(name: str, said: dict[str, bytes]) -> None:
    message_1 = said["request 1"][1:]
    assert said["request 1"][:1] == b"\xf5"
    assert sequence(message_1)[:2] == [3, 2]
    both, token = sequence(said["response 1"])
    g_y, ciphertext = both[:32], both[32:]
    x, i = said["x"], data("keys/identity key of device 2", "private")
    th_2 = sha(dumps(g_y), dumps(sha(message_1)))
    prk_2e = extract(th_2, ecdh(x, g_y))
    stream = kdf(prk_2e, 0, th_2, len(ciphertext))
    plaintext_2 = bytes(one ^ other for one, other in zip(ciphertext, stream, strict=True))
    c_r, kid_r, mac_2, label, height = sequence(plaintext_2)
    assert (c_r, label) == (1, 65001)
    key = data(f"keys/{name}, key agreement", "public")
    assert kid_r == sha(key)[:8]
    cred_r = data("identity/party-credential") if name == "network" else party_credential(key)
    prk_3e2m = extract(kdf(prk_2e, 1, th_2, 32), ecdh(x, key[1:]))
    context = dumps(c_r) + dumps({4: kid_r}) + dumps(th_2) + cred_r + dumps(label) + dumps(height)
    assert mac_2 == kdf(prk_3e2m, 2, context, 8)
    th_3 = sha(dumps(th_2), plaintext_2, cred_r)
    assert th_3 == said["TH_3"]
    token_again, c_r_again, sealed_3 = sequence(said["request 2"])
    assert (token_again, c_r_again) == (token, c_r)
    plaintext_3 = opened(prk_3e2m, (3, 4), th_3, sealed_3)
    kid_i, mac_3, *ead_3 = sequence(plaintext_3)
    assert ead_3[::2] == [-65002, -65003, -65004][: len(ead_3) // 2]
    cred_i = data("identity/device-credential")
    prk_4e3m = extract(kdf(prk_3e2m, 5, th_3, 32), ecdh(i, g_y))
    id_cred_i = dumps({4: kid_i})
    context = id_cred_i + dumps(th_3) + cred_i + b"".join(map(dumps, ead_3))
    assert mac_3 == kdf(prk_4e3m, 6, context, 8)
    request = ead_3[5] if len(ead_3) > 4 else b""
    parts = [th_3, b"firstlight-evidence-1", id_cred_i, cred_i, sha(ead_3[1]), sha(request)]
    assert cbor2.loads(cbor2.loads(ead_3[3])[2])[10] == sha(dumps(parts))
    th_4 = sha(dumps(th_3), plaintext_3, cred_i)
    label, grant = sequence(opened(prk_4e3m, (8, 9), th_4, *sequence(said["response 2"])))
    assert (label, grant) == (-65005, data(f"onboarding-{name}/grant"))
    exporter = kdf(kdf(prk_4e3m, 7, th_4, 32), 10, b"", 32)
    if name == "network":
        party = data("identity/party-credential", "party")
        for label, which in ((32768, "K"), (32769, "OPc")):
            context = dumps([CHAIN, party, cbor2.loads(grant)[4][0], which])
            assert kdf(exporter, label, context, 16) == data("onboarding-network/grant", which)


def party_credential(key: bytes) -> bytes:
    """3.3, for the service."""
    first = data("keys/service", "public")
    party = sha(b"firstlight-party-1", first)[:16]
    point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), key).public_numbers()
    cose_key = {1: 2, 2: sha(key)[:8], -1: 1, -2: point.x.to_bytes(32), -3: point.y.to_bytes(32)}
    return dumps({2: f"{CHAIN}/{party.hex()}", 8: {1: cose_key}})


# --- 9: attaching ---------------------------------------------------------------------------------


def mac(key: bytes, *items: object) -> bytes:
    return hmac.digest(key, dumps(list(items)), "sha256")[:16]


def test_attach() -> None:
    k_aut, msk = data("attach/challenge", "K_aut"), data("attach/challenge", "MSK")
    rand, autn, network, shown = cbor2.loads(data("attach/challenge"))
    identity = sha(data("attach/identity"))
    assert shown == mac(k_aut, "firstlight-attach-challenge-1", identity, rand, autn, network)
    res, answer = cbor2.loads(data("attach/response"))
    assert answer == mac(k_aut, "firstlight-attach-response-1", shown, res)
    session, proxy, lifetime, success = cbor2.loads(data("attach/success"))
    assert success == mac(k_aut, "firstlight-attach-success-1", answer, session, proxy, lifetime)
    assert cbor2.loads(data("attach/detach")) == [session, mac(msk, "firstlight-attach-detach-1", session)]
    password = hmac.digest(msk, dumps(["firstlight-attach-proof-1", session]), "sha256")
    assert password.hex() == example("attach/success")["password for the forwarder"]
    assert data("attach/success", "frame")[2:] == b"\x06" + data("attach/success")


# --- 3, 11: births and manifests ------------------------------------------------------------------


def test_birth_and_manifest() -> None:
    secret, index = data("identity/leaf", "batch secret"), 2
    birth = cbor2.loads(data("identity/birth"))
    assert birth[5] == hmac.digest(secret, b"firstlight-salt-1" + index.to_bytes(4), "sha256")[:16]
    assert birth[7] == hmac.digest(secret, b"firstlight-mailbox-1" + index.to_bytes(4), "sha256")
    root = multiproof_root({index: data("identity/leaf", "hash")}, 5, split(birth[6]))
    assert root == data("identity/leaf", "root")
    issuer, model = cbor2.loads(data("records/batch"))[0], birth[8]
    assert birth[2] == sha(dumps(["firstlight-batch-1", CHAIN, issuer, 5, model, root]))[:16]
    rows = data("manifest/head", "third chunk, the rows")
    cut = [rows[at : at + 180] for at in range(0, len(rows), 180)]
    leaves = {int.from_bytes(row[:4]): sha(b"\x00", row[4:148], model) for row in cut}
    assert multiproof_root(leaves, 5, split(data("manifest/head", "second chunk, the multiproof"))) == root
