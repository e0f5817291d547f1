"""Copies the C++ sources into python/skytorch/_source, from where maturin packs them into the wheel: with them
`skytorch build-backend` can compile the C++ part for another torch. The copy is not committed."""

from __future__ import annotations

import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "python/skytorch/_source"
PARTS = ["CMakeLists.txt", "cmake", "python/skytorch/backend/csrc", "python/skytorch/backend/codegen", "server",
         "crates/skytorch-wire/include"]  # fmt: skip


def main() -> None:
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
