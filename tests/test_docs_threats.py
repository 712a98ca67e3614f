"""Every test that the threat model names exists, and what has none says so."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "threat-model.md").read_text()
NAMED = sorted(set(re.findall(r"`([\w/]+\.py)::(test_\w+)`", PAGE)))


@pytest.mark.parametrize(("file", "name"), NAMED, ids=lambda part: part)
def test_the_test_that_shows_it_exists(file: str, name: str) -> None:
    assert re.search(rf"^(async )?def {name}\(", (ROOT / "tests" / file).read_text(), re.MULTILINE)


def threats() -> list[list[str]]:
    section = PAGE[PAGE.index("## Threats") : PAGE.index("## Who learns what")]
    rows = [line.strip("|").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in row] for row in rows if "shown by" not in row[2]]


def test_every_threat_is_answered_by_a_test_or_marked_open() -> None:
    found = threats()
    assert len(found) > 40
    for threat, _, shown, *over in found:
        assert "::test_" in shown or shown == "**open**", threat
        assert len(over) == 1, threat


def test_the_page_names_each_test_in_full() -> None:
    """A path without a test, or a test without its file, shows nothing."""
    assert len(re.findall(r"::", PAGE)) - PAGE.count("`file::test`") == len(re.findall(r"`[\w/]+\.py::test_\w+`", PAGE))
