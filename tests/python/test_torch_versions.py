"""The supported torch versions are one list: what else names them agrees with it."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def supported() -> list[tuple[int, int]]:
    code = "import torch_env; print(*map(torch_env.minor, torch_env.VERSIONS))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT / ".ci", capture_output=True, text=True, check=True)
    return [tuple(map(int, word.split("."))) for word in done.stdout.split()]


def test_the_package_takes_exactly_these():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (torch,) = [line for line in project["dependencies"] if line.startswith("torch")]
    minors = supported()
    newest = minors[-1]
    assert torch == f"torch>={minors[0][0]}.{minors[0][1]},<{newest[0]}.{newest[1] + 1}"
    assert minors == [(newest[0], n) for n in range(minors[0][1], newest[1] + 1)]


def test_development_is_on_one_of_them():
    found = re.search(r"^torch==(\d+)\.(\d+)", (ROOT / "requirements-dev.txt").read_text(), re.MULTILINE)
    assert (int(found[1]), int(found[2])) in supported()
