"""The C++ parts under sanitizers, in a short form: `make sanitize`.

ASan and UBSan: the executor's tests, then torch programs whose server (and its client) run on the sanitised executor.
TSan: the executor's tests, whose lanes are threads, and the device's checks on the fake wire. A report of a sanitizer
fails its step even if the tests in it passed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sanitizers import ROOT, built, environment, options

PROGRAMS = ["tests/torch/test_views.py", "tests/torch/test_copies.py", "tests/torch/test_failures.py"]
DEVICE = ["tests/cpp/backend"]


def run(title: str, command: list[str | Path], env: dict[str, str], reports: Path) -> bool:
    """One step; prints how it went."""
    start = time.monotonic()
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True)
    found = [report.read_text() for report in reports.glob("report*")]
    good = done.returncode == 0 and not found
    last = (done.stdout.strip().splitlines() or [""])[-1]
    print(f"{title}: {'ok' if good else 'FAILED'}, {len(found)} reports, {time.monotonic() - start:.0f} s: {last}")
    if not good:
        print(done.stdout[-8000:], done.stderr[-8000:], *(text[:8000] for text in found), sep="\n")
    return good


def check(kind: str, programs: list[str]) -> bool:
    """Both steps of one kind."""
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    tests = built(kind) / "tests/server/server_tests"
    with tempfile.TemporaryDirectory(prefix="sky-sanitize-") as name:
        reports = Path(name)
        env = {**os.environ, **options(kind, reports), "ASAN_OPTIONS": f"log_path={reports / 'report'}"}
        good = run(f"{kind}: the executor's tests", [tests, "--gtest_brief=1"], env, reports)
    with tempfile.TemporaryDirectory(prefix="sky-sanitize-") as name:
        wire = built(kind) / "tests/backend/libskytorch_fake_wire.so"
        env = environment(kind, Path(name), SKYTORCH_FAKE_WIRE=str(wire))
        title = f"{kind}: {' '.join(p for p in programs if p.endswith(('.py', 'backend')))}"
        return run(title, [*pytest, *programs], env, Path(name)) and good


def main() -> int:
    """The exit code."""
    with ThreadPoolExecutor(2) as pool:
        return 0 if all(list(pool.map(check, ("address", "thread"), (PROGRAMS, DEVICE)))) else 1


if __name__ == "__main__":
    sys.exit(main())
