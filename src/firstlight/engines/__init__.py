"""Engines that run the ledger's state machine: the embedded one, and what every engine offers."""
