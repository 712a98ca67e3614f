"""An MNO or SP: the server that devices onboard with, and what stands behind it."""
