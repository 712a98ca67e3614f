"""X.509 requests, issuance and topics."""
