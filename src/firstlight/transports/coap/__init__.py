"""CoAP (RFC 7252) over UDP with block-wise transfer (RFC 7959): the same resources and the same bytes as over HTTP.

Everything that a stranger's datagram may make a server keep has a bound in entries, bytes and time, and nobody whose
address is not verified (Echo option, RFC 9175) is sent more than three times what was received. ADR 16 says why the
endpoints are our own and aiocoap is the peer that they are tested against.
"""
