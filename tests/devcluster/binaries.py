"""The cluster's binaries, built from Go modules into the cache: the control plane and, apart from it, our programs.

A build is a folder named for what it was made from: a change of a source makes a new one, and several checkouts can
share the cache. The subtle thing: one lock for all builds, as two at once need twice the memory.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("CACHE", Path.home() / ".cache/skytorch-dev")).absolute()
KUBERNETES = "1.35.4"
VERSION = "k8s.io/component-base/version"
LDFLAGS = f"-s -w -X {VERSION}.gitVersion=v{KUBERNETES} -X {VERSION}.gitMajor=1 -X {VERSION}.gitMinor=35"
UNUSED_DAYS = 7


class BuildError(Exception):
    """The binaries could not be built; the message says what to do."""


@dataclass(frozen=True)
class Binaries:
    """Where the programs are."""

    control_plane: (
        Path  # folder of server (which is etcd), kube-apiserver, kube-controller-manager, kube-scheduler, kubectl
    )
    ours: Path  # folder of agent and pod


def build() -> Binaries:
    """Builds what is missing."""
    sources = sorted(path for folder in ("agent", "pod", "launch") for path in (HERE / folder).glob("*.go"))
    return Binaries(
        control_plane=_built("control-plane", [HERE / "go.mod", HERE / "go.sum"], ["tool"]),
        ours=_built("agent", [HERE / "go.mod", HERE / "go.sum", *sources], ["./agent", "./pod"]),
    )


def _built(name: str, sources: list[Path], packages: list[str]) -> Path:
    key = hashlib.sha256(LDFLAGS.encode())
    for source in sources:
        key.update(source.read_bytes())
    folder = CACHE / "devcluster" / f"{name}-{key.hexdigest()[:16]}"
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with (folder.parent / "build.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.is_dir():
                _compile(name, packages, folder)
    os.utime(folder)
    return folder


def go_build(module: Path, output: str, ldflags: str, packages: list[str]) -> None:
    """`go build` in the folder of a module, with the modules and build outputs of the cache."""
    go = shutil.which("go")
    if go is None:
        raise BuildError("go is not on the PATH: install Go 1.26 or newer (make tools says how)")
    environment = {
        **os.environ,
        "GOMODCACHE": str(CACHE / "go/mod"),
        "GOCACHE": str(CACHE / "go/build"),
        "GOFLAGS": "-buildvcs=false -mod=readonly",
        "GOTOOLCHAIN": "local",
        "CGO_ENABLED": "0",
    }
    # What the linker leaves out (-w) need not be compiled: a tenth of the time.
    command = [go, "build", "-gcflags=all=-dwarf=false", "-ldflags", ldflags, "-o", output, *packages]
    if subprocess.run(command, cwd=module, env=environment).returncode != 0:
        raise BuildError(f"go could not build {' '.join(packages)} in {module}: its messages are above")


def _compile(name: str, packages: list[str], folder: Path) -> None:
    started = time.monotonic()
    print(f"devcluster: building {name} into {folder} (minutes from nothing, else seconds)", flush=True)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    go_build(HERE, f"{partial}/", LDFLAGS, packages)
    partial.rename(folder)
    print(f"devcluster: built {name} in {time.monotonic() - started:.0f} s", flush=True)
    for other in folder.parent.glob(f"{name}-*"):
        if time.time() - other.stat().st_mtime > UNUSED_DAYS * 86400:
            shutil.rmtree(other)
