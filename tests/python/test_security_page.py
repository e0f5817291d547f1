"""docs/security.md names tests: each of them exists."""

from __future__ import annotations

import re

from servers import ROOT

SOURCES = ("tests/**/*.py", "tests/cpp/**/*.cpp", "crates/**/*.rs")


def test_every_test_that_the_threat_model_names_exists() -> None:
    page = (ROOT / "docs" / "security.md").read_text()
    table = page.partition("## Threats")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    sources = "\n".join(path.read_text() for pattern in SOURCES for path in ROOT.glob(pattern))
    defined = set(re.findall(r"^def (test_\w+)|fn (\w+)\(|TEST(?:_F)?\(\w+, (\w+)\)", sources, re.MULTILINE))
    names = {name for found in defined for name in found if name}
    assert len(rows) > 10
    for row in rows:
        tests = re.findall(r"`(\w+)`", row.rstrip("| ").rpartition("|")[2])
        assert tests, f"no test shows: {row}"
        assert not set(tests) - names, row
