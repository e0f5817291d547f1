"""Checks the dependency direction, which is the architecture: nothing of torch or Python under the wire crate, and
nothing of the backend's internals in python/skytorch/client. Prints what it looked at."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    tree = subprocess.run(
        ["cargo", "tree", "--locked", "-p", "skytorch-wire", "-e", "normal,build", "--prefix", "none"],
        cwd=ROOT, capture_output=True, text=True, check=True).stdout  # fmt: skip
    names = {line.split()[0] for line in tree.splitlines() if line.strip()}
    bad = sorted(n for n in names if n.startswith(("pyo3", "tch", "torch")) or n in {"libtorch", "python3-sys"})
    for name in bad:
        print(f"skytorch-wire depends on {name}: the wire must know neither torch nor Python", file=sys.stderr)
    print(f"skytorch-wire: {len(names)} crates in `cargo tree`, {len(bad)} of torch or Python")
    internal = re.compile(r"skytorch\.backend\._|torch\.ops\.")
    for path in sorted((ROOT / "python/skytorch/client").rglob("*.py")):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if internal.search(line):
                print(f"{path.relative_to(ROOT)}:{number}: the client reaches into the backend: {line.strip()}")
                bad.append(str(path))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
