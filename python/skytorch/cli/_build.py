"""`skytorch build-backend`: compiles the C++ part for the installed torch into the user's cache.

The sources come with the wheel (`_source/`), or are the checkout's own. Nothing else in SkyTorch ever compiles. The
libraries appear in the cache only when both are complete: a build that is interrupted leaves the last good ones.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from skytorch import errors
from skytorch.backend.library import cache_folder, minor_of
from skytorch.cli._command import command

PACKAGE = Path(__file__).resolve().parent.parent
NEEDED = {
    "cmake": "install CMake 3.22 or newer (Debian: apt-get install cmake; anywhere: pip install cmake)",
    "g++": "install g++ 12 or newer (Debian: apt-get install g++)",
}
LIBRARIES = ("libskytorch_backend.so", "libskytorch_server.so")
_STEP = re.compile(r"^\[\s*(?:(\d+)/(\d+)|(\d+)%)\]\s*(.*)")


def add(commands: Any) -> None:
    """Declare the command."""
    parser = command(
        commands,
        "build-backend",
        help="compile the C++ part for the installed torch",
        examples="""skytorch build-backend
            skytorch build-backend --jobs 4""",
        run=_run,
    )
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 2, help="parallel compilers (default: %(default)s)"
    )
    parser.add_argument("--clean", action="store_true", help="forget what an earlier build left")


def source_folder() -> Path:
    """Where the C++ sources are."""
    for folder in (PACKAGE / "_source", PACKAGE.parent.parent):
        if (folder / "CMakeLists.txt").is_file() and (folder / "server").is_dir():
            return folder
    raise errors.NotSupported(
        "the C++ sources are not in this installation: install SkyTorch from its wheel or checkout"
    )


def _run(given: argparse.Namespace) -> int:
    try:
        torch_version = version("torch")
    except PackageNotFoundError:
        raise errors.NotSupported("torch is not installed here: pip install torch") from None
    for tool, how in NEEDED.items():
        if shutil.which(tool) is None:
            raise errors.NotSupported(f"{tool} is missing: {how}")
    minor = minor_of(torch_version)
    build = cache_folder() / "build" / f"torch{minor}"
    if given.clean:
        shutil.rmtree(build, ignore_errors=True)
    fresh = build / "lib"
    configure = [
        "cmake", "-S", str(source_folder()), "-B", str(build), "-Wno-dev", f"-DSKYTORCH_PYTHON={sys.executable}",
        f"-DSKYTORCH_LIB_DIR={fresh}", *(["-G", "Ninja"] if shutil.which("ninja") else []),
    ]  # fmt: skip
    print(f"compiling the C++ part for torch {torch_version} (some minutes)")
    log = build / "build.log"
    build.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file:
        _step(configure, file, "configuring")
        _step(["cmake", "--build", str(build), "--parallel", str(given.jobs)], file, "compiling")
    target = cache_folder() / f"torch{minor}"
    target.mkdir(parents=True, exist_ok=True)
    for name in LIBRARIES:
        (fresh / name).replace(target / name)
    print(f"done: {target}")
    return 0


def _step(words: list[str], log: Any, title: str) -> None:
    """Run a command with progress; on failure show the last lines of its output."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    lines: list[str] = []
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TimeElapsedColumn(),
    )
    with Progress(*columns) as progress:
        task = progress.add_task(title, total=100)
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert process.stdout is not None
        for line in process.stdout:
            log.write(line)
            lines.append(line.rstrip())
            found = _STEP.match(line)
            if found:
                done = float(found[3]) if found[3] else 100 * int(found[1]) / int(found[2])
                progress.update(task, completed=done)
        code = process.wait()
        progress.update(task, completed=100)
    if code != 0:
        print("\n".join(lines[-30:]), file=sys.stderr)
        raise errors.SkyTorchError(f"{title} failed (exit code {code}); all output is in {log.name}")
