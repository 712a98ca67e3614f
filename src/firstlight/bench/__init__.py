"""Benchmarks: what Firstlight costs in time, memory and bytes, measured through its real parts on a real file."""
