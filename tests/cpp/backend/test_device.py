"""The device alone: what it sends for a program, on a wire that only takes notes (fake_wire.cpp)."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = Path(__file__).with_name("device_program.py")
MINOR = ".".join(torch.__version__.split(".")[:2])
BACKEND = (
    Path(os.environ.get("SKYTORCH_LIB_DIR", ROOT / f"python/skytorch/lib/torch{MINOR}")) / "libskytorch_backend.so"
)
WIRE = Path(os.environ.get("SKYTORCH_FAKE_WIRE", ROOT / "build/cmake/tests/backend/libskytorch_fake_wire.so"))
CHECKS = re.findall(r"^@check\ndef (\w+)", PROGRAM.read_text(), re.MULTILINE)


@pytest.fixture(scope="module")
def results() -> dict[str, str | None]:
    for library in (BACKEND, WIRE):
        assert library.exists(), f"{library} is not built: run `make native`"
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(BACKEND), str(WIRE)],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, "SKYTORCH_AUTOLOAD": "0"},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, str | None] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("name", CHECKS)
def test_device(results: dict[str, str | None], name: str) -> None:
    assert results[name] is None, results[name]
