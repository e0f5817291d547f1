"""Helm itself, built from Go modules into the cache; kubectl comes with the devcluster.

A build is a folder named for what it was made from. It shares the devcluster's folders of modules and build outputs,
so what both are made of is compiled once. Run as a program it builds, which the tests cannot: their network
namespace has no way out to where modules come from.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("CACHE", Path.home() / ".cache/skytorch-dev")).absolute()


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
    go = shutil.which("go")
    assert go is not None, "go is not on the PATH: install Go 1.26 or newer (make tools says how)"
    print(f"building helm into {folder} (one to three minutes)", flush=True)
    environment = {
        **os.environ,
        "GOMODCACHE": str(CACHE / "go/mod"),
        "GOCACHE": str(CACHE / "go/build"),
        "GOFLAGS": "-buildvcs=false -mod=readonly",
        "GOTOOLCHAIN": "local",
        "CGO_ENABLED": "0",
    }
    partial = folder / "partial"
    command = [go, "build", "-ldflags", "-s -w", "-o", str(partial), "helm.sh/helm/v4/cmd/helm"]
    subprocess.run(command, cwd=HERE, env=environment, check=True)
    partial.rename(folder / "helm")


if __name__ == "__main__":
    build()
