"""How a device attaches and connects, and how an MNO and an SP really serve."""
