"""Firstlight: zero-touch onboarding for massive IoT."""
