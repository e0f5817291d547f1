"""Readies python/skytorch for maturin: the C++ sources in _source, the C++ part of only the chosen torches in lib.

With the sources, `skytorch build-backend` can compile the C++ part for another torch. The copy is not committed. A
library of a torch that is not chosen may be of an older state of the sources, and is removed.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

import torch_env

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "python/skytorch/_source"
LIB = ROOT / "python/skytorch/lib"
PARTS = ["CMakeLists.txt", "cmake", "python/skytorch/backend/csrc", "python/skytorch/backend/codegen", "server",
         "crates/skytorch-wire/include"]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--torch", default=torch_env.minor(version("torch")), help='"2.11 2.15"; "": all supported')
    folders = {f"torch{torch_env.minor(v)}" for v in torch_env.chosen(parser.parse_args().torch)}
    for folder in LIB.iterdir():
        if folder.name not in folders:
            shutil.rmtree(folder)
    if missing := sorted(name for name in folders if not (LIB / name / ".key").is_file()):
        sys.exit(f"there is no C++ part for {', '.join(missing)} in {LIB}: `make wheel-release` builds it")
    shutil.rmtree(TARGET, ignore_errors=True)
    for name in PARTS:
        source, target = ROOT / name, TARGET / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "tests"))
        else:
            shutil.copy2(source, target)


if __name__ == "__main__":
    main()
