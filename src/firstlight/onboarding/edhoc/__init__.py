"""EDHOC (RFC 9528), method 3, initiator and responder."""
