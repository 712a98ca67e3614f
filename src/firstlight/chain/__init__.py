"""Blocks, commits, roots and witnesses: all that a verifier of the chain needs."""
