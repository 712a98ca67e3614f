"""What runs the state machine and writes blocks."""
