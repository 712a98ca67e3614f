"""Fuzzing: a target for each family of parsers. No input may crash or hang one; what it may raise is a FirstlightError.

``python -m tests.fuzz TARGET [--seconds N]`` runs one under atheris, guided by coverage; without ``--seconds`` until it
is stopped. ``python -m tests.fuzz --sample N`` feeds every target N mutations of the vectors in the docs.
"""
