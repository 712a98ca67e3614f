"""Durable stores of the parties and of the gateway."""
