"""The page of all checks, made from the source: ``docs/checks.md``."""

from __future__ import annotations

import itertools
import re

from scripts.checks import Check, checks

HEAD = """# Checks

All numbered checks of all verifiers, made from the docstrings beside the code (`python -m scripts.protocol`). A check's
id is its verifier's name, below the package, and its number.
"""


def page() -> str:
    """Return the page."""
    parts = [HEAD]
    for verifier, some in itertools.groupby(checks(), key=lambda one: one.verifier):
        rows = "\n".join(_row(one) for one in some)
        parts.append(f"## {verifier}\n\n| id | what must hold | refused with, or in |\n| --- | --- | --- |\n{rows}\n")
    return "\n".join(parts)


def _row(check: Check) -> str:
    ways = ", ".join(f"`{way}`" for way in check.ways) or "-"
    return f"| `{check.id}` | {_plain(check.text)} | {ways} |"


def _plain(text: str) -> str:
    """Return docstring text without the codes in brackets, as Markdown has it."""
    text = re.sub(r":[a-z]+:`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", text).replace("``", "`")
    text = re.sub(r" \((?:(?:`\w+` )?`[a-z0-9-]+`(?:, )?)+\)", "", text)
    return re.sub(r" Raises .*", "", text).replace("|", "\\|").rstrip(".,; ")
