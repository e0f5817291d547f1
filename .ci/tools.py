"""Says which tools a build needs and, for each that is missing, how to get it. Needs nothing but Python itself."""

from __future__ import annotations

import shutil
import subprocess
import sys

TOOLS = {
    "cargo": "install Rust 1.90 or newer with rustup, or your distribution's cargo package",
    "g++": "install g++ 12 or newer (Debian: apt-get install g++)",
    "go": "install Go 1.26 or newer (Debian: apt-get install golang): it builds the tests' Kubernetes control plane",
    "cmake": "install CMake 3.22 or newer (Debian: apt-get install cmake)",
}


def main() -> int:
    missing = [f"{tool}: {how}" for tool, how in TOOLS.items() if shutil.which(tool) is None]
    if sys.version_info < (3, 11):  # noqa: UP036 - this is where an older one is told
        missing.append(f"python 3.11 or newer: this is {sys.version.split()[0]}; run make PYTHON3=python3.11")
    if shutil.which("cargo"):
        for part in ("fmt", "clippy"):
            if subprocess.run(["cargo", part, "--version"], capture_output=True, check=False).returncode != 0:
                missing.append(f"cargo {part}: rustup component add {'rustfmt' if part == 'fmt' else part}")
    for line in missing:
        print(f"missing tool: {line}", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
