"""Checks the dependency direction, which is the architecture: nothing of torch or Python under the wire crate, and
nothing of the backend's internals in python/skytorch/client. And that each NOTICE names what is linked into what it
comes with. Prints what it looked at."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOTICES = {"skytorch-py": "NOTICE", "skytorch-operator": "crates/skytorch-operator/NOTICE"}


def crates_under(package: str, edges: str, *options: str) -> set[str]:
    """ "name version" of the package and all that it depends on."""
    tree = subprocess.run(
        ["cargo", "tree", "--locked", "-p", package, "-e", edges, "--prefix", "none", *options],
        cwd=ROOT, capture_output=True, text=True, check=True).stdout  # fmt: skip
    return {" ".join(line.split()[:2]).replace(" v", " ") for line in tree.splitlines() if line.strip()}


def not_in_notice(package: str, notice: str) -> set[str]:
    linked = crates_under(package, "normal", "--target", "x86_64-unknown-linux-gnu")
    listed = set(re.findall(r"^(\S+ \d\S*): .+$", (ROOT / notice).read_text(), re.MULTILINE))
    print(f"{notice}: {len(linked)} crates are linked in, {len(linked - listed)} of them not listed")
    return linked - listed


def main() -> int:
    names = {crate.split()[0] for crate in crates_under("skytorch-wire", "normal,build")}
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
    for package, notice in NOTICES.items():
        for crate in sorted(not_in_notice(package, notice)):
            print(f"{notice} does not list {crate}: run `make notice`", file=sys.stderr)
            bad.append(crate)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
