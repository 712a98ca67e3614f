"""The rules of the ledger, one file for each family of transactions."""
