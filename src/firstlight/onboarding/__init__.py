"""The exchange between a device and one party (sans-I/O)."""
