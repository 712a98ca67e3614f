"""The whole journey over CoAP, in real processes: a device that knows of its gateway over UDP only comes online."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from firstlight.testing.datagram_tap import Passed
from firstlight.testing.lab import Lab
from firstlight.transports.coap import codes
from firstlight.transports.coap.message import Message, Option, parse

AT_THE_GATEWAY = ("/v1/mail", "/v1/bundles", "/relay/")


def asked(message: Message) -> str:
    return "/" + "/".join(value.decode() for value in message.values(Option.URI_PATH))


def test_a_device_that_knows_only_coap_connects(lab: Lab) -> None:
    device = lab.over_coap(lab.device())
    before, since = len(lab.tap.seen), len(lab.interceptor.seen)
    outcome = lab.connects(device)
    assert [line["stage"] for line in outcome.lines][-1] in ("connected", "stopped")
    over_http = [one.path for one, _ in lab.interceptor.seen[since:]]
    assert not [path for path in over_http if path == "/v1/receipts" or path.startswith(AT_THE_GATEWAY)]

    passed = lab.tap.seen[before:]
    messages = [(one, parse(one.data)) for one in passed]
    paths = Counter(asked(message) for one, message in messages if one.up and message.is_request)
    assert {"/v1/mail", "/v1/bundles", "/v1/receipts"} <= set(paths)
    assert any(path == f"/relay/{lab.parties['mno']}/.well-known/edhoc" for path in paths)
    assert not any(lab.parties["sp"] in path for path in paths), "the leg to the SP goes through the attached network"
    assert len({one.client for one in passed}) >= 2, "straight at first, through the forwarder once it is attached"
    answers = Counter(codes.dotted(message.code) for one, message in messages if not one.up and message.code)
    assert set(answers) <= {"2.04", "2.31", "4.01"}, answers
    assert any(message.block(Option.BLOCK1) for one, message in messages if one.up), "message 3 goes block by block"
    assert any(message.block(Option.BLOCK2) for one, message in messages if not one.up), "and bundles come so"
    lab.settle()


def test_a_network_that_loses_doubles_and_repeats_datagrams_delays_a_device_and_no_more(lab: Lab) -> None:
    late, count = list[bytes](), 0

    def bend(passed: Passed) -> list[bytes]:
        nonlocal count
        count += 1
        if count in (4, 13):
            return []
        if passed.up and count % 5 == 0:
            late.append(passed.data)
        again = [late.pop(0)] if late and passed.up and count % 7 == 0 else []
        return [passed.data, passed.data, *again] if count % 3 == 0 else [passed.data, *again]

    device = lab.over_coap(lab.device())
    with lab.tap.bending(bend):
        lab.connects(device)
    assert count > 13
    lab.settle()


def test_spoofed_answers_change_nothing(lab: Lab) -> None:
    """Whoever does not see the datagrams guesses tokens; a device passes over what answers nothing that it asked."""
    device, spoofed = lab.over_coap(lab.device()), 0

    def bend(passed: Passed) -> list[bytes]:
        nonlocal spoofed
        message = parse(passed.data)
        if passed.up or not message.is_response:
            return [passed.data]
        spoofed += 1
        guesses = (bytes(8), message.token[:-1] + bytes([message.token[-1] ^ 1]), b"")
        lies = [replace(message, token=guess, payload=b"\x00" * 40).encode() for guess in guesses]
        other_mid = replace(message, mid=message.mid ^ 1, payload=b"\x00" * 40).encode()
        return [*lies, other_mid, passed.data]

    with lab.tap.bending(bend):
        lab.connects(device)
    assert spoofed > 5
    lab.settle()


def test_a_restarted_gateway_is_one_that_verifies_anew(lab: Lab) -> None:
    """Its Echo key and its record of addresses are gone; a device that shows an old value gets a new one."""
    device = lab.over_coap(lab.device())
    spoilt = 0

    def bend(passed: Passed) -> list[bytes]:
        nonlocal spoilt
        message = parse(passed.data)
        if not passed.up or not message.is_request or spoilt >= 3 or asked(message) != "/v1/bundles":
            return [passed.data]
        spoilt += 1
        options = tuple((n, b"gone" if n == Option.ECHO else v) for n, v in message.options)
        return [Message(message.type, message.code, message.mid, message.token, options, message.payload).encode()]

    with lab.tap.bending(bend):
        lab.connects(device)
    assert spoilt == 3
    lab.settle()
