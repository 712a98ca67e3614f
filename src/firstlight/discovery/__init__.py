"""How a device finds out, and verifies alone, whose it is and where it belongs (sans-I/O)."""
