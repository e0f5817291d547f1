"""deploy/containers without a container engine: the Containerfiles are read, and their build stages are run.

What is run: every COPY of the build stage, from this checkout into a folder with nothing else in it, and then its
RUN lines there, so that a file that was forgotten is missed; what the final stage takes from it is there then. What
is not shown: that the base images exist, apt-get, the users, and the final stage as an image. Builds share the
cache's registry crates, its Python environment and its C++ part if nothing changed in it, so that it takes minutes
and not an hour; the crates of this repository are compiled anew where they have changed.
"""

from __future__ import annotations

import fcntl
import filecmp
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from skytorch import __version__

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "deploy/containers").glob("*.Containerfile"))
CACHE = Path(os.environ.get("CACHE", Path.home() / ".cache/skytorch-dev")).absolute()


@dataclass
class Stage:
    """FROM one line to the next."""

    base: str
    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        return [rest for word, rest in self.steps if word == instruction]

    def taken(self) -> list[tuple[str, str]]:
        """From which stages this one takes what: `COPY --from=STAGE PATH`, and mounts of a RUN."""
        copied = [re.match(r"--from=(\S+) (\S+) ", rest) for rest in self.all("COPY") if rest.startswith("--from")]
        mounted = [re.match(r"--mount=type=bind,from=([^,]+),source=([^, ]+)", rest) for rest in self.all("RUN")]
        return [(found[1], found[2]) for found in copied + mounted if found]


def stages(path: Path) -> list[Stage]:
    """The stages, with continued lines joined; what stands before the first FROM are arguments of all."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    found: list[Stage] = []
    for line in filter(None, (line.strip() for line in text.splitlines())):
        instruction, _, rest = line.partition(" ")
        if instruction == "FROM":
            base, _, name = rest.partition(" AS ")
            found.append(Stage(base, name))
        elif found:
            found[-1].steps.append((instruction, rest.strip()))
        else:
            assert instruction == "ARG", f"{path.name}: {line} before the first FROM"
    return found


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def containerfile(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_the_image_is_labelled_and_runs_as_nobody(containerfile: Path) -> None:
    final = stages(containerfile)[-1]
    (labels,) = final.all("LABEL")
    for key in ("title", "description", "licenses", "version", "revision"):
        assert f"org.opencontainers.image.{key}=" in labels
    assert final.all("USER") == ["65532:65532"]
    after = [word for word, _ in final.steps[[word for word, _ in final.steps].index("USER") :]]
    assert not {"RUN", "COPY", "ADD"} & set(after)
    assert final.all("STOPSIGNAL") == ["SIGTERM"]
    program = ["skytorch-operator"] if "operator" in containerfile.name else ["skytorch", "serve"]
    assert final.all("ENTRYPOINT") == [str(program).replace("'", '"')]


def test_images_and_versions_are_pinned_and_name_no_registry(containerfile: Path) -> None:
    text = containerfile.read_text()
    assert "://" not in text
    for stage in stages(containerfile):
        assert re.fullmatch(r"[a-z]+:[\w.${}-]+", stage.base), f"{stage.base}: a name and a tag, of no registry"
    assert re.findall(r"^ARG VERSION=(.*)$", text, re.MULTILINE) == [__version__]
    pinned = re.search(r"^torch==(.*)$", (ROOT / "requirements-dev.txt").read_text(), re.MULTILINE)[1]
    assert set(re.findall(r"^ARG TORCH=(.*)$", text, re.MULTILINE)) <= {pinned}


def test_what_a_stage_uses_is_declared_in_it(containerfile: Path) -> None:
    """A variable that is not is empty, without a word; so is an argument that stands before the first FROM."""
    for number, stage in enumerate(found := stages(containerfile)):
        known = {"PATH"}
        for instruction, rest in stage.steps:
            assert set(re.findall(r"\$\{?(\w+)", rest)) <= known, f"{instruction} {rest}"
            if instruction == "ARG":
                known.add(rest.partition("=")[0])
            elif instruction == "ENV":
                known |= set(re.findall(r"(\w+)=", rest))
        assert {source for source, _ in stage.taken()} <= {earlier.name for earlier in found[:number]}
    used = {name for stage in found for name in re.findall(r"\$\{(\w+)", stage.base)}
    assert used == set(re.findall(r"^ARG (\w+)=", containerfile.read_text().split("\nFROM ")[0], re.MULTILINE))


def test_what_is_compiled_fits_where_it_runs(containerfile: Path) -> None:
    """A binary needs the C library that it was made with, and a crate the compiler that its manifest names."""
    found = stages(containerfile)
    assert len({re.search(r"(\w+)(-slim)?$", stage.base)[1] for stage in found}) == 1, "one release of Debian"
    rust = re.search(r"^ARG RUST=(.*)$", containerfile.read_text(), re.MULTILINE)[1]
    wanted = re.search(r'^rust-version = "(.*)"$', (ROOT / "Cargo.toml").read_text(), re.MULTILINE)[1]
    assert [int(part) for part in rust.split(".")] >= [int(part) for part in wanted.split(".")]


def test_the_ports_are_those_of_the_operator(containerfile: Path) -> None:
    source = ROOT / "crates/skytorch-operator/src"
    if "operator" in containerfile.name:
        ports = re.findall(r'default_value = "0\.0\.0\.0:(\d+)"', (source / "args.rs").read_text())
    else:
        ports = re.findall(r"_PORT: i32 = (\d+);", (source / "names.rs").read_text())
    assert stages(containerfile)[-1].all("EXPOSE") == [" ".join(ports)]


def test_every_image_is_published() -> None:
    done = subprocess.run(["deploy/containers/publish"], cwd=ROOT, env={**os.environ, "DRY_RUN": "1"},
                          capture_output=True, text=True, check=True)  # fmt: skip
    built = re.findall(r"^podman build .*--manifest (\S+) .*--file (\S+) .*VERSION=(\S+) ", done.stdout, re.MULTILINE)
    assert sorted(file for _, file, _ in built) == [str(path.relative_to(ROOT)) for path in FILES]
    pushed = re.findall(r"^podman manifest push --all (\S+) docker://(\S+)$", done.stdout, re.MULTILINE)
    for manifest, _, version in built:
        assert manifest.endswith((f":{version}", f":{version}-cpu"))
        assert (manifest, manifest) in pushed


def test_what_is_copied_is_committed(containerfile: Path) -> None:
    known = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    for stage in stages(containerfile):
        for words in (rest.split() for rest in stage.all("COPY") if not rest.startswith("--from")):
            for source in words[:-1]:
                assert source != ".", "copy what is needed, by name"
                assert any(path == source or path.startswith(f"{source}/") for path in known), source


def test_the_operator_comes_with_its_own_notice() -> None:
    """Of what is linked into it; the wheel has its own inside. That nothing is missing is .ci/dependencies.py's."""
    final = stages(ROOT / "deploy/containers/operator.Containerfile")[-1]
    names = " ".join(rest for rest in final.all("COPY") if not rest.startswith("--from")).split()
    (notice,) = [name for name in names if name.endswith("NOTICE")]
    listed = set(re.findall(r"^(\S+) \d\S*: .+$", (ROOT / notice).read_text(), re.MULTILINE))
    assert {"skytorch-operator", "kube"} <= listed
    assert "skytorch-py" not in listed


class BareFolder:
    """Stands for the root of the build stage's image. Cargo compiles anew what is newer than its last build, so the
    folder stays, and a file that is copied again and has not changed keeps its time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.skipped: list[str] = []

    def path(self, name: str) -> Path:
        return self.folder / name.lstrip("/")

    def run(self, stage: Stage, arguments: dict[str, str], replacements: dict[str, str]) -> None:
        """The stage's steps in order, with paths of the image inside the folder."""
        where, copied = self.folder, self._copied(stage)
        self._keep_only({to for files in copied.values() for to in files})
        for instruction, rest in stage.steps:
            if instruction == "WORKDIR":
                where = self.path(rest)
                where.mkdir(parents=True, exist_ok=True)
            elif instruction == "COPY" and not rest.startswith("--from"):
                for to, source in copied[rest].items():
                    if not to.exists() or not filecmp.cmp(source, to, shallow=False):
                        to.parent.mkdir(parents=True, exist_ok=True)
                        shutil.copy(source, to)
            elif instruction == "RUN" and not rest.startswith("apt-get "):
                self._run(rest, where, arguments, replacements)
            else:
                self.skipped.append(f"{instruction} {rest}")

    def _copied(self, stage: Stage) -> dict[str, dict[Path, Path]]:
        """Of each COPY of this checkout: where each file goes, and what it is."""
        where, found = self.folder, {}
        for instruction, rest in stage.steps:
            if instruction == "WORKDIR":
                where = self.path(rest)
            elif instruction == "COPY" and not rest.startswith("--from"):
                found[rest] = self._files(rest.split(), where)
        return found

    def _files(self, words: list[str], where: Path) -> dict[Path, Path]:
        *sources, target = words
        files = {}
        for source in sources:
            command = ["git", "ls-files", "-z", "--", source]
            tracked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
            for name in filter(None, tracked.stdout.split("\0")):
                inside = Path(name).name if target == "./" else str(Path(target) / Path(name).relative_to(source))
                files[self.path(inside) if inside.startswith("/") else where / inside] = ROOT / name
        return files

    def _keep_only(self, files: set[Path]) -> None:
        for root, folders, names in os.walk(self.folder, topdown=False):
            for path in (Path(root) / name for name in (*names, *folders)):
                if path.is_symlink() or path.is_file():
                    if path not in files:
                        path.unlink()
                elif not any(path.iterdir()):
                    path.rmdir()

    def _run(self, script: str, where: Path, arguments: dict[str, str], replacements: dict[str, str]) -> None:
        for path, real in replacements.items():
            script = script.replace(path, real)
        script = script.replace("/src", str(self.path("/src")))
        environment = {**os.environ, **arguments, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        environment.pop("PYTHONPATH", None)
        done = subprocess.run(["sh", "-ec", script], cwd=where, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{script}\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"


@pytest.fixture
def bare(request: pytest.FixtureRequest) -> Iterator[BareFolder]:
    folder = CACHE / "containers" / request.node.name
    folder.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another checkout's tests
        yield BareFolder(folder)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_operators_build_stage(bare: BareFolder) -> None:
    target = os.environ.get("CARGO_TARGET_DIR", str(CACHE / "target"))
    build, final = stages(ROOT / "deploy/containers/operator.Containerfile")
    bare.run(build, {}, {"/src/target": target})
    ((_, program),) = final.taken()
    linked = subprocess.run(["ldd", bare.path(program)], capture_output=True, text=True, check=True).stdout
    known = {"linux-vdso.so.1", "libc.so.6", "libm.so.6", "libgcc_s.so.1"}  # what every Debian has
    assert {line.split()[0] for line in linked.splitlines()} <= known | {"/lib64/ld-linux-x86-64.so.2"}, linked
    help_text = subprocess.run([bare.path(program), "--help"], capture_output=True, text=True)
    assert help_text.returncode == 0, help_text.stderr
    assert "crdgen" in help_text.stdout
    assert bare.skipped == ["RUN apt-get update && apt-get install -y --no-install-recommends cmake g++ make"]


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_servers_build_stage(bare: BareFolder, tmp_path: Path) -> None:
    _, build, final = stages(ROOT / "deploy/containers/server-cuda.Containerfile")
    bare.run(build, {}, {"/src/cache": str(CACHE)})
    ((_, dist),) = final.taken()
    (wheel,) = bare.path(dist).glob("skytorch-*.whl")
    packed = zipfile.ZipFile(wheel)
    names = packed.namelist()
    (commands,) = [name for name in names if name.endswith(".dist-info/entry_points.txt")]
    assert "skytorch=skytorch.cli:main" in packed.read(commands).decode().replace(" ", "")
    assert any(re.search(r"skytorch/lib/torch[\d.]+/libskytorch_server\.so$", name) for name in names), names
    # The final stage installs exactly this.
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", site, wheel]
    subprocess.run(install, check=True, capture_output=True)
    entry = "import sys; from skytorch.cli import main; sys.exit(main(['serve', '--help']))"
    command = [sys.executable, "-c", entry]
    help_text = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(site)}, capture_output=True, text=True)
    assert "--health" in help_text.stdout, help_text.stderr
    assert all(step.startswith(("COPY --from=rust", "ENV ", "RUN apt-get ")) for step in bare.skipped), bare.skipped


def test_both_server_images_are_built_alike() -> None:
    """They differ in torch's index, in words, and in what the driver's runtime reads."""
    cpu, cuda = (
        set((ROOT / f"deploy/containers/server-{kind}.Containerfile").read_text().splitlines())
        for kind in ("cpu", "cuda")
    )
    for line in cpu ^ cuda:
        assert re.search(r"^# |TORCH|NVIDIA|PYTHONUNBUFFERED|image\.description|cache/venv", line), line
