"""What a device is born with, and what is handed on with it."""
