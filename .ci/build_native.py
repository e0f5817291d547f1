"""Builds the C++ libraries and their tests with CMake in build/cmake, or takes them from the cache.

The key is a hash of every input (sources, header, CMake files, the oracle's generator, torch and compiler versions),
so a fresh clone of a tree that was built before costs a copy. The subtle thing: the tests run from build/cmake, which
is why their programs are kept too and not just the two libraries.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# A sanitised build has no use for the oracle's tests; ASan is for the server, which strangers reach.
SANITIZED = {
    "address": ["skytorch_server", "server_tests"],
    "thread": ["server_tests", "skytorch_backend", "skytorch_fake_wire"],
}
INPUTS = ["CMakeLists.txt", "cmake", "python/skytorch/backend/csrc", "python/skytorch/backend/codegen", "server",
          "tests/cpp", "crates/skytorch-wire/include"]  # fmt: skip


def input_files() -> list[Path]:
    files: list[Path] = []
    for name in INPUTS:
        path = ROOT / name
        if path.is_file():
            files.append(path)
        else:
            files += [p for p in path.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    files = [p for p in files if p.suffix != ".py" or "codegen" in p.parts]
    return sorted(files)


def key(options: list[str]) -> str:
    digest = hashlib.sha256()
    compiler = subprocess.run(["g++", "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    digest.update(f"{version('torch')}|{compiler}|{options}|{sys.version_info[:2]}".encode())
    for path in input_files():
        digest.update(str(path.relative_to(ROOT)).encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:20]


def googletest(cache: Path) -> list[str]:
    """CMake options that find GoogleTest: none if it is installed, else Debian's package unpacked into the cache."""
    if any(Path(p).exists() for p in ("/usr/include/gtest/gtest.h", "/usr/local/include/gtest/gtest.h")):
        return []
    root = cache.parent / "googletest"
    if not (root / "usr/include/gtest/gtest.h").exists():
        root.mkdir(parents=True, exist_ok=True)
        command = "apt-get download -q libgtest-dev && for deb in libgtest-dev_*.deb; do dpkg -x $deb .; done"
        if subprocess.run(["sh", "-c", f"{command} || (apt-get update -q && {command})"], cwd=root).returncode != 0:
            sys.exit("GoogleTest is missing: install it (Debian: apt-get install libgtest-dev) and try again")
    return [f"-DCMAKE_PREFIX_PATH={root / 'usr'}"]


def build(build_dir: Path, options: list[str], targets: list[str]) -> None:
    ninja = Path(sys.executable).parent / "ninja"
    subprocess.run(
        ["cmake", "-S", ROOT, "-B", build_dir, "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}",
         f"-DSKYTORCH_PYTHON={sys.executable}", "-Wno-dev", *options],
        check=True, stdout=subprocess.DEVNULL)  # fmt: skip
    subprocess.run(
        [ninja, "-C", build_dir, f"-j{os.environ.get('SKYTORCH_JOBS', os.cpu_count() or 2)}", *targets],
        check=True)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cache", type=Path, required=True, help="folder that keeps finished builds by content")
    parser.add_argument("--build-dir", default="cmake", help="build/NAME instead (default: %(default)s)")
    parser.add_argument("--sanitize", choices=SANITIZED, help="build/sanitize-KIND instead, libraries included")
    args = parser.parse_args()
    build_dir = ROOT / "build" / (f"sanitize-{args.sanitize}" if args.sanitize else args.build_dir)
    options: list[str] = []
    targets: list[str] = []
    lib_dir = ROOT / "python" / "skytorch" / "lib" / f"torch{'.'.join(version('torch').split('.')[:2])}"
    if args.sanitize:
        kinds = {"address": "address,undefined"}.get(args.sanitize, args.sanitize)
        options, targets, lib_dir = [f"-DSKYTORCH_SANITIZE={kinds}"], SANITIZED[args.sanitize], build_dir / "lib"
    name = key(options)
    stamp = lib_dir / ".key"
    if stamp.is_file() and stamp.read_text() == name and (build_dir / "tests").is_dir():
        return 0
    kept = args.cache / name
    if kept.is_dir():
        shutil.copytree(kept / "lib", lib_dir, dirs_exist_ok=True)
        shutil.copytree(kept / "tests", build_dir / "tests", dirs_exist_ok=True)
        print(f"C++ part: unchanged, taken from the cache ({name})")
    else:
        print(f"building the C++ part{f' for {args.sanitize} sanitizers' if args.sanitize else ''} (some minutes)")
        always = ["-DSKYTORCH_TESTS=ON", f"-DSKYTORCH_LIB_DIR={lib_dir}", *googletest(args.cache)]
        build(build_dir, [*always, *options], targets)
        staging = args.cache / f".{name}.{os.getpid()}"
        shutil.copytree(lib_dir, staging / "lib", ignore=shutil.ignore_patterns(".key"))
        shutil.copytree(build_dir / "tests", staging / "tests", ignore=shutil.ignore_patterns("CMakeFiles"))
        staging.rename(kept)
    stamp.write_text(name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
