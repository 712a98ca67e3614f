"""The MNO's and the SP's side of network and service access."""
