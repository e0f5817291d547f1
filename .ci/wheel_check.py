"""Checks the built wheel's tag, installs it into an empty virtual environment and runs the digits example there.

Nothing of the checkout is on the path, and no compiler: the example is copied out. torch itself is taken from an
environment in the cache by a .pth file, because it is several gigabytes; everything of SkyTorch comes from the wheel.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GLIBC = (2, 35)  # the newest that a user may need


def run(torch_python: Path, torch_version: str) -> int:
    """Check the newest wheel, with the torch of that interpreter; an exit status."""
    wheel = max((ROOT / "dist").glob("*.whl"), key=lambda p: p.stat().st_mtime)
    tag = re.fullmatch(r"skytorch-[^-]+-cp311-abi3-manylinux_(\d+)_(\d+)_x86_64\.whl", wheel.name)
    if tag is None or (int(tag[1]), int(tag[2])) > GLIBC:
        print(f"{wheel.name}: not an abi3 wheel for Python 3.11 and glibc {GLIBC[0]}.{GLIBC[1]}", file=sys.stderr)
        return 1
    names = zipfile.ZipFile(wheel).namelist()
    if missing := [name for name in ("LICENSE", "NOTICE") if not any(n.endswith(f"licenses/{name}") for n in names)]:
        print(f"{wheel.name}: there is no {' and no '.join(missing)} in it", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        venv.create(home / "env", with_pip=True)
        python = home / "env/bin/python"
        env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        env |= {"PATH": str(home / "env/bin"), "XDG_RUNTIME_DIR": str(home)}  # no Compute of another run is seen
        site = Path(
            subprocess.run([python, "-c", "import site; print(site.getsitepackages()[0])"],
                           capture_output=True, text=True, check=True, env=env).stdout.strip())  # fmt: skip
        where = "import site; print(site.getsitepackages()[0])"
        cached = subprocess.run([torch_python, "-c", where], capture_output=True, text=True, check=True).stdout
        # What a .pth of that environment names comes after it.
        (site / "torch-from-cache.pth").write_text(f"import site; site.addsitedir({cached.strip()!r})\n")
        subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", wheel], check=True, env=env)
        shutil.copytree(ROOT / "examples", home / "examples")
        print(
            f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB; running the digits example on torch {torch_version}"
        )
        where = "import skytorch, torch; print(skytorch.__file__, torch.__version__)"
        origin = subprocess.run([python, "-c", where], capture_output=True, text=True, check=True, env=env, cwd=home)
        if not origin.stdout.startswith(str(home)) or f" {torch_version}" not in origin.stdout:
            print(f"{origin.stdout.strip()}: not skytorch from the wheel and torch {torch_version}", file=sys.stderr)
            return 1
        return subprocess.run([python, "examples/train_digits.py"], env=env, cwd=home, check=False).returncode


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cache", type=Path, required=True)
    args = parser.parse_args()
    python = args.cache / "venv/bin/python"
    version = "import importlib.metadata as packages; print(packages.version('torch'))"
    found = subprocess.run([python, "-c", version], capture_output=True, text=True, check=True).stdout
    return run(python, found.strip())


if __name__ == "__main__":
    sys.exit(main())
