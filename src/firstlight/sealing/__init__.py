"""Envelopes, locators, deposits and receipts: mail through somebody nobody trusts."""
