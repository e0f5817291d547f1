"""What a process needs to run C++ parts that were built with sanitizers: the runtime before Python, and its options.

Python and torch are not instrumented. ASan sees every allocation of theirs all the same; TSan sees their locks and
their memory functions and not what else orders their threads, hence `tsan.supp`.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SUPPRESSIONS = Path(__file__).with_name("tsan.supp")
RUNTIMES = {"address": "libasan.so", "thread": "libtsan.so"}


def built(kind: str) -> Path:
    """Where `.ci/build_native.py --sanitize KIND` builds."""
    return ROOT / f"build/sanitize-{kind}"


def _library(name: str) -> str:
    found = subprocess.run(["g++", f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    return found.stdout.strip()


def options(kind: str, reports: Path) -> dict[str, str]:
    """The sanitizer's own variables; what it finds goes to files in `reports` and ends the process with an error."""
    log = f"log_path={reports / 'report'}"
    if kind == "thread":
        # A check of the device ends a child by a fault, which is the kernel's to see.
        return {"TSAN_OPTIONS": f"suppressions={SUPPRESSIONS}:handle_segv=0:{log}"}
    return {
        # Python never frees what it has at its end, so leaks are for the C++ tests to find.
        "ASAN_OPTIONS": f"detect_leaks=0:allocator_may_return_null=1:quarantine_size_mb=64:{log}",
        "UBSAN_OPTIONS": f"print_stacktrace=1:{log}",
    }


def environment(kind: str, reports: Path, **more: str) -> dict[str, str]:
    """For a Python process with the libraries of `kind`."""
    # libstdc++ with the runtime: it looks for what throws before Python has loaded torch.
    preload = f"{_library(RUNTIMES[kind])} {_library('libstdc++.so')}"
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT / "python"),
        "SKYTORCH_LIB_DIR": str(built(kind) / "lib"),
        "LD_PRELOAD": preload,
        **options(kind, reports),
        **more,
    }
