"""Merkle trees: RFC 6962, sparse, and the ownership trie."""
