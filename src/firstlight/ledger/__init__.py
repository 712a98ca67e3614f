"""The replicated state machine: records, transactions and rules."""
