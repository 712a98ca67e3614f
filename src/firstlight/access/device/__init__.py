"""The device's side of network and service access."""
