"""Makes the parts of ``docs/protocol.md`` that follow from the code: CDDL, tables, diagrams, byte-exact examples.

``python -m scripts.protocol`` writes the page, ``docs/firstlight.cddl`` and ``docs/vectors/`` anew; a test compares.
"""
