"""Worlds, fakes and conformance suites; imported by tests only."""
