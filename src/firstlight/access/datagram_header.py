"""What stands before each datagram that goes through a SOCKS5 forwarder (RFC 1928 §7)."""

from __future__ import annotations

import ipaddress

_HEADER = 4
_IPV4, _NAME, _IPV6 = 1, 3, 4


def parse_header(data: bytes) -> tuple[bytes, str, int] | None:
    """Return a datagram's header, and the host and port in it; None for what is no whole datagram (RFC 1928 §7)."""
    if len(data) < _HEADER or data[:3] != b"\x00\x00\x00":
        return None
    kind, at = data[3], _HEADER
    if kind == _NAME:
        if len(data) == at:
            return None
        at += 1
    size = {_IPV4: 4, _IPV6: 16, _NAME: data[_HEADER] if kind == _NAME else 0}.get(kind)
    if not size or len(data) < at + size + 2:
        return None
    address = data[at : at + size]
    if kind == _NAME and not all(0x21 <= byte < 0x7F for byte in address):
        return None
    host = address.decode("ascii") if kind == _NAME else str(ipaddress.ip_address(address))
    end = at + size + 2
    return data[:end], host, int.from_bytes(data[end - 2 : end])
