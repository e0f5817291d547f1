"""The images that pods can name, each a command of this machine: a checkout's server and operator, and two for tests.

A name without a tag stands for every tag. What an image carries is mounted under paths of its own, so that a volume
over /tmp or /root does not hide a checkout or an environment that lies there.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from binaries import CACHE, Binaries

VENV, PYTHON = "/opt/skytorch/venv", "/opt/skytorch/python"
PATH = f"{VENV}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def table(checkout: Path, binaries: Binaries) -> dict[str, Any]:
    """The table as the agent reads it (agent/image.go). `checkout`: whose python/ and operator they are."""
    environment = {VENV: sys.prefix, PYTHON: str(checkout / "python")}
    variables = {"PATH": PATH, "PYTHONPATH": PYTHON, "PYTHONUNBUFFERED": "1"}
    target = Path(os.environ.get("CARGO_TARGET_DIR", CACHE / "target"))
    return {
        "ghcr.io/skytorch/skytorch-server": {
            "entrypoint": [f"{VENV}/bin/python", "-m", "skytorch.cli", "serve"],
            "env": variables,
            "files": environment,
        },
        "ghcr.io/skytorch/skytorch-operator": {
            "entrypoint": ["/usr/local/bin/skytorch-operator"],
            "command": ["run"],
            "files": {"/usr/local/bin/skytorch-operator": str(target / "release/skytorch-operator")},
            "hint": "cargo build --release -p skytorch-operator makes it",
        },
        "skytorch-test/stub:v1": {
            "entrypoint": ["/usr/local/bin/pod", "stub"],
            "files": {"/usr/local/bin/pod": str(binaries.ours / "pod")},
        },
        "skytorch-test/python:v1": {
            "command": [f"{VENV}/bin/python"],
            "env": variables,
            "files": environment,
        },
    }
