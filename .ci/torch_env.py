"""Makes the environment of one of the torch versions that SkyTorch supports: VERSIONS is the one list of them.

An environment is a virtual one with its own torch, triton and CUDA runtime with headers, at what that torch's
metadata asks for. Everything else is the development environment's, by a .pth file; of CUDA's libraries (3 GB), which
fit every torch of one CUDA major, there are links. So it can be made only for the development torch's CUDA major.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import venv
from importlib.metadata import PathDistribution, distribution
from pathlib import Path

VERSIONS = ("2.11.0", "2.12.1", "2.13.0", "2.14.1", "2.15.0")


def minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


def chosen(words: str | None) -> list[str]:
    """The versions that TORCH="2.11 2.15" names, or "ends" for the oldest and the newest; all if it names none."""
    names = [minor(VERSIONS[0]), minor(VERSIONS[-1])] if words == "ends" else (words or "").split()
    if unknown := [n for n in names if n not in map(minor, VERSIONS)]:
        sys.exit(f"torch {', '.join(unknown)}: not one of {', '.join(map(minor, VERSIONS))} (.ci/torch_env.py)")
    return [v for v in VERSIONS if not names or minor(v) in names]


def requirements(torch: PathDistribution) -> dict[str, tuple[set[str], str]]:
    """What torch asks for on this machine: name -> (extras, specifier)."""
    from packaging.requirements import Requirement

    wanted = [Requirement(line) for line in torch.requires or []]
    return {r.name: (r.extras, str(r.specifier)) for r in wanted if not r.marker or r.marker.evaluate({"extra": ""})}


def pip_install(site: Path, *words: str) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--no-compile", "--target", site]
    # pip compares with the packages of the environment that it runs in, and says what does not go with those.
    done = subprocess.run([*pip, "--upgrade", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        sys.exit(done.stdout)


def link_missing(ours: Path, theirs: Path) -> None:
    """Link what lies in `ours` and not in `theirs`, whole folders where there is none; mend links to nothing."""
    for entry in ours.iterdir():
        link = theirs / entry.name
        if link.is_symlink():
            if link.exists():
                continue
            link.unlink()
        if link.is_dir():
            link_missing(entry, link)
        elif not link.exists() and not entry.name.startswith("libcudart"):  # theirs has another name
            link.symlink_to(entry)


def make(cache: Path, version: str) -> Path:
    """The interpreter of the environment for this torch, which is made if it is not there."""
    ours = distribution("torch")
    if ours.version.split("+")[0] == version:
        return Path(sys.executable)
    home = cache / "matrix" / f"torch{minor(version)}" / "venv"
    site = home / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    stamp = home / ".torch"
    our_site = Path(str(ours.locate_file("")))
    if not stamp.is_file() or stamp.read_text() != version:
        print(
            f"setting up an environment with torch {version} in {home} (a large download the first time)", flush=True
        )
        stamp.unlink(missing_ok=True)
        venv.create(home, with_pip=False, clear=True)
        pip_install(site, "--no-deps", f"torch=={version}")
        asked = requirements(PathDistribution(site / f"torch-{version}.dist-info"))
        pip_install(site, "--no-deps", f"triton{asked['triton'][1]}")
        toolkit = {"cudart", "crt"} | (asked["cuda-toolkit"][0] - requirements(ours)["cuda-toolkit"][0])
        pip_install(site, f"cuda-toolkit[{','.join(sorted(toolkit))}]{asked['cuda-toolkit'][1]}")
        (site / "development.pth").write_text(f"{our_site}\n")
        (home / "bin/ninja").symlink_to(Path(sys.executable).parent / "ninja")
        stamp.write_text(version)
    link_missing(our_site / "nvidia", site / "nvidia")
    return home / "bin/python"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--torch", help='"2.11 2.15": these minors only')
    args = parser.parse_args()
    for version in chosen(args.torch):
        print(make(args.cache, version))
    return 0


if __name__ == "__main__":
    sys.exit(main())
