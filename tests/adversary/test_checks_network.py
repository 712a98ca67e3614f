"""What a stranger, a copied SIM or a false network says where only one check of an operator or a device stands.

The operator's network and its forwarder serve real sockets; the device's half is what the device process runs. Each
attempt comes after an honest attach to the same network.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from tests.refusals import refused

from firstlight.access.ports import Proxy
from firstlight.sim import aka, attach_device, attach_network, suci
from firstlight.sim.attach import Challenge, Identity, Reject, SyncFailure
from firstlight.sim.attach_device import Answered
from firstlight.sim.subscription import Credentials, SimGrant, SoftSim, Subscription, SubscriptionStatus
from firstlight.sim.suci import HomeKey, HomeNetwork, Scheme, Suci
from firstlight.stores.subscriptions import Subscriptions
from firstlight.testing.access_network import (
    HOME,
    KEY,
    LONG,
    Conversation,
    MemorySim,
    World,
    network_world,
)
from firstlight.testing.random import SeededRandom

# --- what a device is told ------------------------------------------------------------------------

OWN = Credentials("001010000000001", bytes(range(16)), bytes(range(16, 32)))
SIM = SoftSim.from_grant(SimGrant(OWN.imsi, HOME, "WLAN", "tcp://127.0.0.1:4000"), OWN)
HELLO = attach_device.identify(SIM, SeededRandom("device"))
PROXY, SESSION = "socks5://127.0.0.1:4001", b"session-16-bytes"


def challenged(
    *, network: str = "WLAN", hello: Identity = HELLO, own: Credentials = OWN, amf: bytes = aka.AMF_SEPARATION
) -> attach_network.Pending:
    vector = aka.make_vector(own.k, own.opc, aka.next_sqn(0), bytes(16), amf=amf)
    return attach_network.challenge(own.imsi, hello, vector, network)


def answered() -> tuple[attach_network.Pending, Answered]:
    pending = challenged()
    answer = attach_device.respond(SIM, HELLO, pending.challenge)
    assert isinstance(answer, Answered)
    return pending, answer


def resigned() -> Challenge:
    """A genuine challenge for plain UMTS, whose MAC the thief cannot make, and need not if nobody looks at AMF."""
    return challenged(amf=aka.AMF_UMTS).challenge


CHALLENGES: Mapping[str, tuple[str, Callable[[], Challenge]]] = {
    "by-a-network-that-the-grant-does-not-name": ("wrong-network", lambda: challenged(network="HRPD").challenge),
    "with-a-vector-for-plain-umts": ("separation-missing", resigned),
    "by-somebody-without-the-key": (
        "network-not-authentic",
        lambda: challenged(own=replace(OWN, k=bytes(16))).challenge,
    ),
    "covering-another-devices-hello": (
        "network-not-authentic",
        lambda: challenged(hello=replace(HELLO, nonce=bytes(16))).challenge,
    ),
}


@pytest.mark.parametrize("name", sorted(CHALLENGES))
def test_a_device_answers_no_such_challenge(name: str) -> None:
    """A false network, or one that relays another's vectors, wants a device's response."""
    code, made = CHALLENGES[name]
    answered()
    assert refused(lambda: attach_device.respond(SIM, HELLO, made())) == code


def test_a_challenge_heard_before_is_answered_with_where_the_sim_stands() -> None:
    """Somebody replays a challenge that he has overheard, to get the same keys again."""
    pending, answer = answered()
    again = attach_device.respond(answer.sim, HELLO, pending.challenge)
    assert isinstance(again, SyncFailure)
    assert aka.open_auts(OWN.k, OWN.opc, pending.vector.rand, again.auts) == aka.next_sqn(0)


def test_a_sim_trusts_no_vector_of_somebody_without_its_key_and_none_twice() -> None:
    """A false network makes AUTN up, or replays one."""
    vector = aka.make_vector(OWN.k, OWN.opc, aka.next_sqn(0), bytes(16))
    honest = aka.answer(OWN.k, OWN.opc, SIM.sequence, vector.rand, vector.autn)
    assert isinstance(honest, aka.Accepted)
    forged = vector.autn[:-1] + bytes([vector.autn[-1] ^ 1])
    assert isinstance(aka.answer(OWN.k, OWN.opc, SIM.sequence, vector.rand, forged), aka.MacFailure)
    assert isinstance(aka.answer(OWN.k, OWN.opc, honest.sequence, vector.rand, vector.autn), aka.SyncFailure)


def test_a_device_believes_no_success_but_its_own_networks() -> None:
    """Somebody between a device and its network opens the port to a forwarder of his own."""
    pending, answer = answered()
    success = attach_network.succeed(pending, answer.response, SESSION, PROXY, 60)
    assert attach_device.conclude(answer, success).id == SESSION
    forged = replace(success, proxy="socks5://127.0.0.1:9")
    assert refused(lambda: attach_device.conclude(answer, forged)) == "network-not-authentic"


# --- what a network is told -----------------------------------------------------------------------


def test_a_network_takes_no_response_but_the_devices_to_this_challenge() -> None:
    """Somebody without the SIM guesses RES, or brings one that he got by another challenge."""
    pending, answer = answered()
    attach_network.check(pending, answer.response)
    guessed = replace(answer.response, res=bytes(len(answer.response.res)))
    assert refused(lambda: attach_network.check(pending, guessed)) == "wrong-response"
    relayed = replace(answer.response, mac=bytes(16))
    assert refused(lambda: attach_network.check(pending, relayed)) == "bad-mac"


def test_a_network_goes_to_no_sequence_number_but_the_sims() -> None:
    """Somebody without the SIM has the network use up its sequence numbers."""
    vector = aka.make_vector(OWN.k, OWN.opc, 32, bytes(16))
    honest = aka.make_auts(OWN.k, OWN.opc, vector.rand, 992)
    assert aka.open_auts(OWN.k, OWN.opc, vector.rand, honest) == 992
    forged = honest[:-1] + bytes([honest[-1] ^ 1])
    assert refused(lambda: aka.open_auts(OWN.k, OWN.opc, vector.rand, forged)) == "bad-auts"


def concealed(home: HomeNetwork = HOME, msin: bytes | None = None) -> Suci:
    if msin is None:
        return home.conceal(OWN.imsi, SeededRandom("suci"))
    output = suci.protect(home.scheme, home.key, msin, bytes(range(32)))
    return Suci(home.mcc, home.mnc, home.routing, home.scheme, home.key_id, output)


def unpaired() -> Suci:
    made = concealed()
    return replace(made, output=made.output[:-1] + bytes([made.output[-1] ^ 1]))


SUCIS: Mapping[str, tuple[str, Callable[[], Suci]]] = {
    "under-another-keys-number": ("wrong-key", lambda: replace(concealed(), key_id=9)),
    "with-a-point-of-small-order": ("bad-point", lambda: replace(concealed(), output=bytes(45))),
    "changed-on-its-way": ("bad-suci", unpaired),
    "that-hides-no-digits": ("bad-msin", lambda: concealed(msin=b"\xab\xcd")),
}


@pytest.mark.parametrize("name", sorted(SUCIS))
def test_an_operator_reveals_no_such_identity(name: str) -> None:
    """A stranger makes identities up, or changes those that he has overheard."""
    code, made = SUCIS[name]
    assert suci.reveal(concealed(), KEY) == OWN.imsi
    assert refused(lambda: suci.reveal(made(), KEY)) == code


def test_an_operator_reveals_nothing_with_a_key_of_another_scheme() -> None:
    """A stranger has an operator compute on a curve that the key is not of."""
    other = suci.generate(Scheme.PROFILE_B, KEY.key_id, SeededRandom("other"))
    assert refused(lambda: suci.reveal(concealed(), HomeKey(other.scheme, other.key_id, other.private))) == "wrong-key"


def test_only_subscriptions_that_stand_are_used(tmp_path: Path) -> None:
    """A device whose subscription was never there, was switched off or has ended wants a vector all the same."""
    store = Subscriptions.open(tmp_path / "subscriptions.sqlite")
    with contextlib.closing(store):
        for number in (1, 2, 3):
            own = Credentials(f"00101000000000{number}", bytes(16), bytes(16))
            store.add(Subscription(own, 0, SubscriptionStatus.PENDING, number.to_bytes(16), number.to_bytes(16)))
        store.allocate("001010000000001")
        store.suspend((2).to_bytes(16))
        store.end((3).to_bytes(16))
        assert refused(lambda: store.allocate("001010000000009")) == "unknown-subscriber"
        assert refused(lambda: store.allocate("001010000000002")) == "subscription-suspended"
        assert refused(lambda: store.allocate("001010000000003")) == "subscription-dead"


# --- over the wire --------------------------------------------------------------------------------

Attempt = Callable[[World, Conversation, Subscription, MemorySim], Awaitable[None]]


async def _hello(talk: Conversation, sim: MemorySim) -> tuple[Identity, Challenge]:
    hello = attach_device.identify(sim.sim, SeededRandom("device"))
    challenge = await talk.say(hello)
    assert isinstance(challenge, Challenge)
    return hello, challenge


async def concealed_for_another(_: World, talk: Conversation, __: Subscription, sim: MemorySim) -> None:
    sim.sim = replace(sim.sim, home=replace(sim.sim.home, key_id=9))
    await talk.say(attach_device.identify(sim.sim, SeededRandom("device")))


async def switched_off(world: World, talk: Conversation, subscription: Subscription, sim: MemorySim) -> None:
    world.store.suspend(subscription.grant)
    await talk.say(attach_device.identify(sim.sim, SeededRandom("device")))


async def of_another_network(_: World, talk: Conversation, __: Subscription, sim: MemorySim) -> None:
    await _hello(talk, sim)
    await talk.say(Reject())


async def always_out_of_step(world: World, talk: Conversation, subscription: Subscription, sim: MemorySim) -> None:
    """A copied SIM drives the number on, again and again."""
    own = subscription.credentials
    _, challenge = await _hello(talk, sim)
    again = await talk.say(SyncFailure(aka.make_auts(own.k, own.opc, challenge.rand, 999)))
    assert isinstance(again, Challenge)
    await talk.say(SyncFailure(aka.make_auts(own.k, own.opc, again.rand, 5000)))


def responding(**changes: bytes) -> Attempt:
    async def attempt(_: World, talk: Conversation, __: Subscription, sim: MemorySim) -> None:
        hello, challenge = await _hello(talk, sim)
        own = attach_device.respond(sim.sim, hello, challenge)
        assert isinstance(own, Answered)
        await talk.say(replace(own.response, **changes))

    return attempt


ATTACHES: Mapping[str, tuple[str, Attempt]] = {
    "concealed-for-another-key": ("bad-suci", concealed_for_another),
    "switched-off": ("subscription-suspended", switched_off),
    "of-another-network": ("network-rejected", of_another_network),
    "always-out-of-step": ("resync-repeated", always_out_of_step),
    "guessing": ("wrong-response", responding(res=bytes(8))),
    "relaying": ("bad-mac", responding(mac=bytes(16))),
}


@pytest.mark.parametrize("name", sorted(ATTACHES))
def test_a_network_attaches_no_such_device(tmp_path: Path, name: str) -> None:
    """A device that is not, or no longer, a subscriber wants in; the reason stays with the operator."""
    code, attempt = ATTACHES[name]

    async def main() -> None:
        async with asyncio.timeout(LONG), network_world(tmp_path) as world:
            await world.access.attach(world.subscribe(1)[1])
            before, (subscription, sim) = Counter(world.network.outcomes), world.subscribe(2)
            async with world.conversation() as talk:
                await attempt(world, talk, subscription, sim)
                talk.writer.write_eof()
                assert await talk.reader.read() == b""
            new = world.network.outcomes - before
            del new["resynchronised"]
            assert new == {code: 1}
            assert world.network.attached() == 1
            assert world.store.sessions(subscription.credentials.imsi) == []

    asyncio.run(main())


# --- the forwarder --------------------------------------------------------------------------------

GREETING, ANONYMOUS = b"\x05\x01\x02", b"\x05\x01\x00"


def login(proxy: Proxy, password: str = "") -> bytes:
    name, proof = proxy.username.encode(), (password or proxy.password).encode()
    return b"\x01" + bytes([len(name)]) + name + bytes([len(proof)]) + proof


def towards(address: tuple[str, int], command: int = 1) -> bytes:
    return bytes((5, command, 0, 1)) + socket.inet_aton(address[0]) + address[1].to_bytes(2)


async def answer(proxy: Proxy, request: bytes, data: bytes = b"") -> bytes:
    """Say all that, and return what comes back until the forwarder hangs up, or the far end has answered."""
    reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
    with contextlib.closing(writer), contextlib.suppress(ConnectionError):
        writer.write(request + data)
        writer.write_eof()
        return await reader.read()
    return b""


PASSAGES: Mapping[str, tuple[str, Callable[[World, Proxy], bytes]]] = {
    "without-credentials": (
        "forwarder-no-credentials",
        lambda world, proxy: ANONYMOUS + login(proxy) + towards(world.far),
    ),
    "with-a-proof-made-up": (
        "forwarder-no-session",
        lambda world, proxy: GREETING + login(proxy, "0" * len(proxy.password)) + towards(world.far),
    ),
    "to-listen-there": (
        "forwarder-bad-request",
        lambda world, proxy: GREETING + login(proxy) + towards(world.far, command=2),
    ),
    "to-where-nobody-may-go": (
        "forwarder-destination-refused",
        lambda world, proxy: GREETING + login(proxy) + towards(("127.0.0.1", 9)),
    ),
}


@pytest.mark.parametrize("name", sorted(PASSAGES))
def test_nobody_passes_the_forwarder_like_that(tmp_path: Path, name: str) -> None:
    """Somebody who is not attached, or goes where the operator forbids it, uses the network's way out."""
    code, made = PASSAGES[name]

    async def main() -> None:
        async with asyncio.timeout(LONG), network_world(tmp_path) as world:
            proxy = (await world.access.attach(world.subscribe(1)[1])).proxy
            world.forbidden.add(("127.0.0.1", 9))
            honest = await answer(proxy, GREETING + login(proxy) + towards(world.far), b"ping")
            assert honest.endswith(b"ping")
            before = Counter(world.network.outcomes)
            assert not (await answer(proxy, made(world, proxy), b"ping")).endswith(b"ping")
            assert world.network.outcomes - before == {code: 1}

    asyncio.run(main())
