"""Servers that a test owns: child processes of the local provider, and `skytorch serve` at an address.

Everything here is ended by the test that opened it. Nothing waits by sleeping: readiness is a line on the server's
standard output, an end is `wait()` on the process.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent


def environment(**more: str) -> dict[str, str]:
    """This process's environment with the checkout's package first on the path."""
    path = os.pathsep.join(p for p in (str(ROOT / "python"), os.environ.get("PYTHONPATH", "")) if p)
    return {**os.environ, "PYTHONPATH": path, **more}


def descendants() -> set[int]:
    return {child.pid for child in psutil.Process().children(recursive=True)}


@contextlib.contextmanager
def local_compute(name: str) -> Iterator[tuple[object, psutil.Process]]:
    """A Compute of the local provider and its server's process."""
    from skytorch.client import Compute

    before = descendants()
    with Compute(f"{name}-{os.getpid()}", provider="local") as compute:  # two test runs do not meet
        (pid,) = [p for p in descendants() - before if psutil.Process(p).status() != psutil.STATUS_ZOMBIE]
        yield compute, psutil.Process(pid)


def suspend(server: psutil.Process) -> None:
    """Stop a server that is a child of this process; on return none of its threads runs."""
    server.suspend()
    os.waitid(os.P_PID, server.pid, os.WSTOPPED)


@dataclass
class Served:
    """A `skytorch serve` process that listens."""

    process: subprocess.Popen[str]
    address: str
    token: str
    lines: list[str]


@contextlib.contextmanager
def serve(
    tmp_path: Path,
    *flags: str,
    token: str | None = "a-token-for-tests",
    env: dict[str, str] | None = None,
    python: str = sys.executable,
) -> Iterator[Served]:
    """`skytorch serve FLAGS`, ready; flags say where it listens."""
    if token is not None:
        token_file = tmp_path / "token"
        token_file.write_text(token)
        token_file.chmod(0o600)
        flags = (*flags, "--token-file", str(token_file))
    command = [python, "-m", "skytorch.cli", "serve", *flags]
    process = subprocess.Popen(
        command, env=environment(**(env or {})), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
    )
    lines: list[str] = []
    try:
        address = None
        for line in process.stdout:
            lines.append(line.rstrip())
            if found := re.search(r"(unix://\S+|(?:tcp|tls)://[\w.\[\]:-]+:\d+)", line):
                address = found.group(1)
                break
        assert address is not None, f"{command} ended before it listened:\n" + "\n".join(lines)
        reader = threading.Thread(target=lambda: lines.extend(line.rstrip() for line in process.stdout), daemon=True)
        reader.start()
        yield Served(process, address, token or "", lines)
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def run_python(code: str, *, timeout_s: float = 120, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a fresh interpreter with the checkout's package."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env=environment(**env),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        cwd=ROOT,
    )
