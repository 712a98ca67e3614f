"""The gateway: relays proofs, sealed mail and handshake bytes between devices and everybody else.

Nobody has to trust it, and it keeps no secrets. What it checks, it checks so that its store is not filled by those who
have no right to it.
"""
