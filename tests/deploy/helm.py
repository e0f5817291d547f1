"""Helm itself, built from Go modules into the cache; kubectl comes with the devcluster.

A build is a folder named for what it was made from. It shares the devcluster's folders of modules and build outputs,
so what both are made of is compiled once. Run as a program it builds, which the tests cannot: their network
namespace has no way out to where modules come from.
"""

from __future__ import annotations

import fcntl
import hashlib
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "devcluster"))
from binaries import CACHE, go_build  # noqa: E402


def build() -> Path:
    """The binary, built if it is not there."""
    key = hashlib.sha256((HERE / "go.mod").read_bytes() + (HERE / "go.sum").read_bytes()).hexdigest()[:16]
    folder = CACHE / "helm" / key
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "helm").is_file():
            _compile(folder)
    return folder / "helm"


def _compile(folder: Path) -> None:
    print(f"building helm into {folder} (one to three minutes)", flush=True)
    partial = folder / "partial"
    go_build(HERE, str(partial), "-s -w", ["helm.sh/helm/v4/cmd/helm"])
    partial.rename(folder / "helm")


if __name__ == "__main__":
    build()
