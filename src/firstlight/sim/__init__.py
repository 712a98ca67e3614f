"""Subscriptions: Milenage, AKA and SUCI."""
