"""Builds and tests the C++ part for the torch versions that SkyTorch supports, each in an environment of its own.

`matrix.py build` compiles, `test` also runs the C++ tests of the executor and the named Python tests, `wheel-check`
runs the digits example from the wheel on each torch. All take `--torch "2.11 2.15"`. The subtle thing: the C++ part
of each torch lies in python/skytorch/lib/torchX.Y of this checkout, but its tests in build/torchX.Y, and those of the
development torch in build/cmake.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import schemas
import torch_env
import wheel_check

ROOT = Path(__file__).resolve().parent.parent
OTHER_TESTS = "tests/torch/test_other_torch.py"


def build_folder(python: Path, version: str) -> str:
    return "cmake" if python == Path(sys.executable) else f"torch{torch_env.minor(version)}"


def build(cache: Path, version: str) -> tuple[Path, Path]:
    """The interpreter of this torch, and the folder of its C++ tests."""
    python = torch_env.make(cache, version)
    name = build_folder(python, version)
    script = [python, ROOT / ".ci/build_native.py", "--cache", cache / "native", "--build-dir", name]
    subprocess.run(script, check=True)
    return python, ROOT / "build" / name / "tests"


def test(cache: Path, version: str, other: Path, words: list[str]) -> str | None:
    """What failed, or None. `other` is the interpreter of another version, which is built, for servers of it."""
    python, tests = build(cache, version)
    env = os.environ | {
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "python"),
        "SKYTORCH_ORACLE_PROBE": str(tests / "oracle/_oracle_probe.so"),
        "SKYTORCH_FAKE_WIRE": str(tests / "backend/libskytorch_fake_wire.so"),
    }
    if other != python:
        env["SKYTORCH_OTHER_PYTHON"] = str(other)
    print(f"\n== torch {version}: C++ tests of the executor", flush=True)
    if subprocess.run([tests / "server/server_tests", "--gtest_brief=1"], env=env, check=False).returncode != 0:
        return "C++ tests"
    print(f"\n== torch {version}: pytest {' '.join(words)}", flush=True)
    if subprocess.run([python, "-m", "pytest", *words], env=env, cwd=ROOT, check=False).returncode != 0:
        return "Python tests"
    return None


def needs_other(words: list[str]) -> list[str]:
    """Of these words for pytest, the options, and of the tests those that need a server with another torch."""
    return [word for word in words if not word.startswith("tests/")] + [OTHER_TESTS]


def test_all(cache: Path, versions: list[str], words: list[str], tested: bool) -> int:
    """`tested`: `make test` has passed on the development torch, so it has only the tests left that it skipped."""
    outcomes = {}
    built = {version: build(cache, version)[0] for version in versions}
    for version, other in zip(versions, [*versions[1:], versions[0]], strict=True):
        start = time.monotonic()
        skipped = tested and built[version] == Path(sys.executable)
        failed = test(cache, version, built[other], needs_other(words) if skipped else words)
        outcomes[version] = failed
        print(f"torch {version}: {failed + ' failed' if failed else 'passed'} in {time.monotonic() - start:.0f} s")
    print("\n== operators that both a client and a server of another torch know")
    unnoticed = schemas.compare(built)
    print()
    for version, failed in outcomes.items():
        print(f"torch {version:8} {failed + ' failed' if failed else 'passed'}")
    return 1 if unnoticed or any(outcomes.values()) else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("action", choices=["build", "test", "wheel-check"])
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--torch", help='"2.11 2.15": these minors only')
    parser.add_argument("--tested", action="store_true", help="make test has just passed: do not repeat its tests")
    parser.epilog = "test: what comes after -- is given to pytest"
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    args = parser.parse_args(sys.argv[1:end])
    versions = torch_env.chosen(args.torch)
    if args.action == "test":
        return test_all(args.cache, versions, sys.argv[end + 1 :], args.tested)
    for version in versions:
        if args.action == "build":
            build(args.cache, version)
        elif code := wheel_check.run(torch_env.make(args.cache, version), version):
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main())
