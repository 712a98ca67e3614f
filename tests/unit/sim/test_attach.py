from dataclasses import replace

import pytest

from firstlight.encoding import encode
from firstlight.errors import AccessError, FirstlightError, MalformedError
from firstlight.sim import aka, attach, attach_device, attach_network, suci
from firstlight.sim.attach import Challenge, Detached, Identity, Reject, Response, SyncFailure
from firstlight.sim.attach_device import Answered
from firstlight.sim.subscription import Credentials, SimGrant, SoftSim
from firstlight.sim.suci import HomeNetwork, Scheme
from firstlight.testing.random import SeededRandom

KEY = suci.generate(Scheme.PROFILE_A, 1, SeededRandom("home"))
HOME = HomeNetwork("001", "01", "0", Scheme.PROFILE_A, 1, KEY.public)
OWN = Credentials("001010000000001", bytes(range(16)), bytes(range(16, 32)))
SIM = SoftSim.from_grant(SimGrant(OWN.imsi, HOME, "WLAN", "tcp://127.0.0.1:4000"), OWN)
IDENTITY = attach_device.identify(SIM, SeededRandom("device"))
PROXY = "socks5://127.0.0.1:4001"
SESSION = b"session-16-bytes"


def challenge(*, network: str = "WLAN", identity: Identity = IDENTITY, **changes: object) -> attach_network.Pending:
    amf = changes.pop("amf", aka.AMF_SEPARATION)
    own = replace(OWN, **changes)  # type: ignore[arg-type]
    vector = aka.make_vector(own.k, own.opc, aka.next_sqn(0), bytes(16), amf=amf)  # type: ignore[arg-type]
    return attach_network.challenge(own.imsi, identity, vector, network)


def answered() -> tuple[attach_network.Pending, Answered]:
    pending = challenge()
    result = attach_device.respond(SIM, IDENTITY, pending.challenge)
    assert isinstance(result, Answered)
    return pending, result


def code(action: object) -> str:
    with pytest.raises(FirstlightError) as caught:
        action()  # type: ignore[operator]
    return caught.value.code


def test_an_honest_run_gives_both_sides_the_same_keys() -> None:
    assert attach_network.identify(IDENTITY.suci, {1: KEY}) == OWN.imsi
    pending, result = answered()
    attach_network.check(pending, result.response)
    success = attach_network.succeed(pending, result.response, SESSION, PROXY, 60)
    session = attach_device.conclude(result, success)
    assert session.proof == attach.session_proof(pending.keys.msk, SESSION)
    assert session.detach.mac == attach.detach_mac(pending.keys.msk, SESSION)
    assert (session.id, session.proxy, session.lifetime) == (SESSION, PROXY, 60)
    assert result.sim.sequence.sqn == aka.next_sqn(0)
    assert session.proof not in repr(session)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"network": "HRPD"}, "wrong-network"),
        ({"amf": aka.AMF_UMTS}, "separation-missing"),
        ({"k": bytes(16)}, "network-not-authentic"),
        ({"opc": bytes(16)}, "network-not-authentic"),
        ({"imsi": "001010000000002"}, "network-not-authentic"),
        ({"identity": replace(IDENTITY, nonce=bytes(16))}, "network-not-authentic"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else value,
)
def test_a_device_refuses(changes: dict[str, object], expected: str) -> None:
    pending = challenge(**changes)  # type: ignore[arg-type]
    assert code(lambda: attach_device.respond(SIM, IDENTITY, pending.challenge)) == expected


def test_a_renamed_challenge_is_refused_although_autn_is_genuine() -> None:
    # a network that relays another's vector under the name that the device expects
    foreign = challenge(network="HRPD").challenge
    assert (
        code(lambda: attach_device.respond(SIM, IDENTITY, replace(foreign, network="WLAN"))) == "network-not-authentic"
    )


def test_a_replayed_challenge_asks_for_resynchronisation() -> None:
    pending, result = answered()
    again = attach_device.respond(result.sim, IDENTITY, pending.challenge)
    assert isinstance(again, SyncFailure)
    assert aka.open_auts(OWN.k, OWN.opc, pending.vector.rand, again.auts) == aka.next_sqn(0)


def test_the_network_refuses_a_wrong_response() -> None:
    pending, result = answered()
    assert code(lambda: attach_network.check(pending, replace(result.response, res=bytes(8)))) == "wrong-response"
    assert code(lambda: attach_network.check(pending, replace(result.response, res=b"\0" * 4))) == "wrong-response"
    assert code(lambda: attach_network.check(pending, replace(result.response, mac=bytes(16)))) == "bad-mac"


@pytest.mark.parametrize(
    "changes", [{"session": bytes(16)}, {"proxy": "socks5://127.0.0.1:9"}, {"lifetime": 61}, {"mac": bytes(16)}]
)
def test_a_device_refuses_a_forged_success(changes: dict[str, object]) -> None:
    pending, result = answered()
    success = attach_network.succeed(pending, result.response, SESSION, PROXY, 60)
    forged = replace(success, **changes)  # type: ignore[arg-type]
    assert code(lambda: attach_device.conclude(result, forged)) == "network-not-authentic"


@pytest.mark.parametrize("keys", [{}, {1: suci.generate(Scheme.PROFILE_A, 1, SeededRandom("other"))}])
def test_an_identity_that_cannot_be_revealed(keys: dict[int, suci.HomeKey]) -> None:
    with pytest.raises(AccessError) as caught:
        attach_network.identify(IDENTITY.suci, keys)
    assert caught.value.code == "bad-suci"


def test_frames_survive_the_round_trip() -> None:
    pending, result = answered()
    success = attach_network.succeed(pending, result.response, SESSION, PROXY, 60)
    for message in (
        IDENTITY,
        pending.challenge,
        result.response,
        SyncFailure(bytes(14)),
        Reject(),
        success,
        Detached(),
    ):
        data = attach.frame(message)
        assert attach.body_size(data[:2]) == len(data) - 2
        assert attach.parse(data[2:]) == message


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", "bad-frame"),
        (b"\x01", "bad-frame"),
        (b"\x00\x80", "bad-frame"),
        (b"\x0a\x80", "bad-frame"),
        (b"\x05" + bytes(1024), "bad-frame"),
        (b"\x05\x81\x00", "wrong-shape"),
        (b"\x05\xff", "not-cbor"),
        (b"\x05\x98\x00", "not-canonical"),
        (b"\x04" + encode([bytes(13)]), "wrong-shape"),
    ],
)
def test_bad_frames_are_refused(body: bytes, expected: str) -> None:
    assert code(lambda: attach.parse(body)) == expected


@pytest.mark.parametrize("prefix", [b"\0\0", b"\0\1", b"\x04\x01", b"\xff\xff"])
def test_bad_lengths_are_refused(prefix: bytes) -> None:
    with pytest.raises(MalformedError) as caught:
        attach.body_size(prefix)
    assert caught.value.code == "bad-frame"


def test_secrets_are_not_shown() -> None:
    pending, result = answered()
    shown = repr(pending.keys) + repr(result)
    assert repr(pending.keys.msk) not in shown
    assert repr(OWN.k) not in shown
    assert isinstance(result.response, Response)
    assert isinstance(pending.challenge, Challenge)
