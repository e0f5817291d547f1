"""Runs every Python snippet of README.md as it stands, each in a fresh interpreter on the local provider."""

from __future__ import annotations

import re

import pytest
from servers import ROOT, run_python

pytestmark = [pytest.mark.remote, pytest.mark.slow]


def snippets() -> list[str]:
    readme = ROOT / "README.md"
    return re.findall(r"^```python\n(.*?)^```", readme.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("number", range(len(snippets())))
def test_snippet(number):
    done = run_python(snippets()[number], SKYTORCH_PROVIDER="local")
    assert done.returncode == 0, f"{snippets()[number]}\n{done.stderr}"


def test_there_are_snippets():
    assert snippets()
