"""Locators: under which name a device's mail lies at a gateway.

A locator is the first 16 bytes of HMAC-SHA256(mailbox secret, label ‖ the gateway's name). Two gateways cannot
tell that they serve the same device, and mail to the device and receipts from it lie under different locators.
"""

from __future__ import annotations

import hmac
from typing import Annotated

from firstlight.encoding import Text

GatewayName = Annotated[str, Text(r"[A-Za-z0-9][A-Za-z0-9.:/_~\[\]-]{0,119}")]
"""The name that a gateway goes by; deposits and locators are bound to it."""
LOCATOR = 16


def gateway_name(url: str) -> str:
    """Return the name of the gateway at ``url``: the URL over HTTP, also where it is reached over CoAP.

    Both transports have one port number, so that a gateway has one name whatever carries the bytes.
    """
    plain = url.rstrip("/")
    return "http" + plain.removeprefix("coap") if plain.startswith("coap://") else plain


def mailbox_locator(mailbox: bytes, gateway: str) -> bytes:
    """Return where envelopes for the device with that mailbox secret lie at ``gateway`` (16 bytes)."""
    return _locator(b"firstlight-envelopes-1", mailbox, gateway)


def receipt_locator(mailbox: bytes, gateway: str) -> bytes:
    """Return where receipts by the device with that mailbox secret lie at ``gateway`` (16 bytes)."""
    return _locator(b"firstlight-receipts-1", mailbox, gateway)


def _locator(label: bytes, mailbox: bytes, gateway: str) -> bytes:
    return hmac.digest(mailbox, label + b"\x00" + gateway.encode(), "sha256")[:LOCATOR]
