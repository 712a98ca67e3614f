"""What an owner chose for devices, and what was agreed with the chosen."""
