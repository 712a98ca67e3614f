"""Write the page, the rules and the examples anew."""

from __future__ import annotations

from pathlib import Path

from scripts import checks_page
from scripts.protocol import page, rules, vectors

DOCS = Path(__file__).parents[2] / "docs"


def outputs() -> dict[Path, str]:
    """Return what each generated file must hold."""
    protocol = DOCS / "protocol.md"
    found = {protocol: page.fill(protocol.read_text()), DOCS / "firstlight.cddl": rules.whole()}
    found[DOCS / "checks.md"] = checks_page.page()
    return found | {DOCS / "vectors" / name: text for name, text in vectors.files().items()}


def main() -> None:
    """Write what differs, remove what is no longer made."""
    wanted = outputs()
    (DOCS / "vectors").mkdir(exist_ok=True)
    for path, text in wanted.items():
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            print(path.relative_to(DOCS.parent))
    for path in (DOCS / "vectors").glob("*.json"):
        if path not in wanted:
            path.unlink()


if __name__ == "__main__":
    main()
