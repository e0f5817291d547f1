"""Starts a server, sets the session fuzzer on it and says what came of it: `make fuzz-sessions`.

The fuzzer (crates/skytorch-wire/examples/fuzz_sessions) is the hostile client. This is its referee: it gives it the
operators of this torch, watches the server's memory against its limit, and reads what the sanitizers wrote.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import psutil
from sanitizers import environment

MIB = 1 << 20
MAX_MEMORY = 1024 * MIB
# What a server has besides tensors: torch, Python, templates, and with ASan the memory that it holds back.
BESIDES = 1024 * MIB
SAMPLE_S = 0.05


def short(kind: str) -> str:
    """torch's name of an argument's type, as schemas write it: `Optional[List[int]]` is `int[]?`."""
    kind = kind.replace(" ", "")
    for word, suffix in (("Optional", "?"), ("List", "[]")):
        if kind.startswith(f"{word}["):
            return short(kind[len(word) + 1 : -1]) + suffix
    return {"number": "Scalar"}.get(kind, kind)


KINDS = {
    "Tensor",
    "int",
    "float",
    "bool",
    "str",
    "Scalar",
    "ScalarType",
    "Layout",
    "MemoryFormat",
    "Device",
    "Generator",
}


def operators() -> str:
    """Every operator of aten with the types of its arguments and the number of tensors that it returns."""
    import torch

    lines = []
    for schema in torch._C._jit_get_all_schemas():
        if not schema.name.startswith("aten::"):
            continue
        name = schema.name + (f".{schema.overload_name}" if schema.overload_name else "")
        types = [short(str(a.real_type)) for a in schema.arguments]
        if any(t.rstrip("[]?") not in KINDS for t in types):
            continue
        lines.append(f"{name}|{','.join(types)}|{sum(str(r.type) == 'Tensor' for r in schema.returns)}")
    return "\n".join(sorted(lines)) + "\n"


class Memory(threading.Thread):
    """The highest resident size of a process, from samples."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._process, self.peak, self.stop = psutil.Process(pid), 0, threading.Event()

    def run(self) -> None:
        """Until `stop` is set or the process is gone."""
        while not self.stop.wait(SAMPLE_S):
            try:
                self.peak = max(self.peak, self._process.memory_info().rss)
            except psutil.NoSuchProcess:
                return


def main() -> int:
    """The exit code: 0 if everything held."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--fuzzer", type=Path, required=True, help="the built example fuzz_sessions")
    args = parser.parse_args()
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory(prefix="sky-fuzz-") as name:
        return run(args, Path(name))


def run(args: argparse.Namespace, folder: Path) -> int:
    token, listed, last = folder / "token", folder / "operators", folder / "last"
    token.write_text("a-token-of-the-fuzzer")
    token.chmod(0o600)
    listed.write_text(operators())
    output = (folder / "server.log").open("w+")
    command = [
        *(sys.executable, "-m", "skytorch.cli", "serve", "--uds", folder / "socket", "--token-file", token),
        *("--max-memory", str(MAX_MEMORY), "--auth-timeout", "2", "--resume-timeout", "0.03", "--log-level", "error"),
    ]
    sanitised = environment("address", folder, OMP_NUM_THREADS="1")
    server = subprocess.Popen(command, env=sanitised, stdout=subprocess.PIPE, stderr=output, text=True)
    assert server.stdout is not None
    if not server.stdout.readline().startswith("listening on"):
        server.wait()
        output.seek(0)
        print(f"the server did not start:\n{output.read()}")
        return 1
    memory = Memory(server.pid)
    memory.start()
    started = psutil.Process(server.pid).memory_info().rss
    given = {
        "ADDRESS": f"unix://{folder / 'socket'}",
        "TOKEN": token.read_text(),
        "OPERATORS": str(listed),
        "LAST_CASE": str(last),
    }
    fuzzer = subprocess.run([args.fuzzer], env={**os.environ, **given})
    crashed = server.poll() is not None
    memory.stop.set()
    memory.join()
    server.terminate()
    stopped = server.wait(30)
    reports = sorted(folder.glob("report.*"))
    limit = MAX_MEMORY + BESIDES
    print(
        f"server: {memory.peak // MIB} MiB at most ({started // MIB} before), limit {limit // MIB} MiB "
        f"({MAX_MEMORY // MIB} of tensors); crashes: {int(crashed)}; sanitizer reports: {len(reports)}"
    )
    if crashed:
        print(
            f"the server ended with {stopped}; again: {last.read_text() if last.exists() else 'before any session'}"
        )
    if crashed or stopped != 0 or fuzzer.returncode != 0:
        output.seek(0)
        print(output.read()[-20000:])
    for report in reports:
        print(report.read_text()[:8000])
    return int(crashed or stopped != 0 or fuzzer.returncode != 0 or bool(reports) or memory.peak > limit)


if __name__ == "__main__":
    sys.exit(main())
