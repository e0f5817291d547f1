"""Finds the C++ libraries for the running torch: which folders are looked at, and what to say when none fits.

The libraries are tied to a torch minor version. A wheel carries those of every supported minor under `lib/`;
`skytorch build-backend` puts others into the user's cache. Finding one loads nothing, and nothing here compiles.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal

from skytorch._version import __version__

Kind = Literal["backend", "server"]
PACKAGE_LIB = Path(__file__).resolve().parent.parent / "lib"


def minor_of(torch_version: str) -> str:
    """ "2.15" of "2.15.0+cu132"."""
    found = re.match(r"\d+\.\d+", torch_version)
    if not found:
        raise ImportError(f"skytorch cannot read torch's version {torch_version!r}")
    return found.group()


def cache_folder() -> Path:
    """Where `skytorch build-backend` puts what it builds: one folder per SkyTorch version."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "skytorch" / __version__


def search_path(minor: str) -> list[Path]:
    """The folders that are looked at, in order."""
    named = os.environ.get("SKYTORCH_LIB_DIR")
    folders = [Path(named)] if named else []
    return [*folders, PACKAGE_LIB / f"torch{minor}", cache_folder() / f"torch{minor}"]


def carried() -> list[str]:
    """The torch minors that a library is installed or built for."""
    roots = (PACKAGE_LIB, cache_folder())
    found = {
        path.parent.name.removeprefix("torch") for root in roots for path in root.glob("torch*/libskytorch_*.so")
    }
    return sorted(found, key=lambda minor: [int(part) for part in minor.split(".")])


def find(kind: Kind, torch_version: str) -> Path:
    """The library of `kind` for this torch; an ImportError of one line if there is none."""
    minor = minor_of(torch_version)
    for folder in search_path(minor):
        path = folder / f"libskytorch_{kind}.so"
        if path.is_file():
            return path
    have = ", ".join(carried()) or "no torch version"
    raise ImportError(
        f"skytorch has no C++ part for torch {torch_version} (there is one for {have}): "
        "run `skytorch build-backend`, which compiles it in a few minutes"
    )


def load(kind: Kind, torch_version: str) -> None:
    """Load the library into this process, which registers its operators; an ImportError of one line if it cannot."""
    import torch

    path = find(kind, torch_version)
    try:
        torch.ops.load_library(str(path))  # type: ignore[no-untyped-call]
    except OSError as error:
        reason = error.__cause__ or error
        raise ImportError(
            f"skytorch's C++ part for torch {torch_version} cannot be loaded ({reason}): run `skytorch build-backend`"
        ) from None
