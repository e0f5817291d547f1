"""Finds the C++ libraries for the running torch: which folders are looked at, and what to say when none fits.

The libraries are tied to a torch minor version. A wheel carries those of every supported minor under `lib/`;
`skytorch build-backend` puts others into the user's cache. Finding one loads nothing, and nothing here compiles.
"""

from __future__ import annotations

import importlib.util
import os
import re
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Torch:
    """The torch of this environment, as far as can be said without importing it."""

    version: str  # "2.15.0+cu132"
    folder: Path


def installed_torch() -> Torch:
    """Where `import torch` would find it; an ImportError if it would not."""
    spec = importlib.util.find_spec("torch")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("skytorch needs torch, and none is installed here: `pip install torch`")
    folder = Path(spec.submodule_search_locations[0])
    found = re.search(r"^__version__ = '([^']+)'", (folder / "version.py").read_text(), re.MULTILINE)
    if not found:
        raise ImportError(f"skytorch cannot read torch's version in {folder / 'version.py'}")
    return Torch(found[1], folder)


def load(torch_version: str) -> None:
    """Load the backend into this process, which registers its operators; an ImportError of one line if it cannot."""
    import torch

    path = find("backend", torch_version)
    try:
        torch.ops.load_library(str(path))  # type: ignore[no-untyped-call]
    except OSError as error:
        raise cannot_load(torch_version, error) from None


def cannot_load(torch_version: str, error: OSError) -> ImportError:
    """What to raise when a library that was found cannot be loaded."""
    return ImportError(
        f"skytorch's C++ part for torch {torch_version} cannot be loaded ({error.__cause__ or error}): "
        "run `skytorch build-backend`"
    )
