"""The two sides of a benchmark: this process, and a server that is reached over a Unix socket, TCP or TLS.

`node(plan, kind)` opens a server and says how to look at its process. With the stand-in the local cpu plays the
device, which proves the benches and measures nothing.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from benches.relay import delayed
from benches.rounds import Plan

ROOT = Path(__file__).resolve().parent.parent
MIB = 1 << 20
FAR_S = 0.002
NO_STATS = dict.fromkeys(("ops", "templates", "op_bytes_sent", "lane_bytes_sent", "bytes_received"), 0)


@dataclass
class Node:
    """One server as a benchmark sees it."""

    device: torch.device
    process: psutil.Process
    compute: Any = None  # None: the stand-in

    def stats(self) -> dict[str, int]:
        return self.compute.stats() if self.compute else dict(NO_STATS)

    def synchronize(self) -> None:
        if self.compute:
            torch.sky.synchronize(self.device)

    @property
    def threads(self) -> Any:
        return self.compute.server_info.get("threads", "?") if self.compute else torch.get_num_threads()


def describe(plan: Plan) -> str:
    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    stand_in = " | STAND-IN: the local cpu plays the device" if plan.stand_in else ""
    threads = f"client threads {torch.get_num_threads()}"
    return f"torch {torch.__version__} | {model}, {os.cpu_count()} cores | {threads}{stand_in}"


@contextlib.contextmanager
def node(plan: Plan, kind: str = "local") -> Iterator[Node]:
    """A server: `local` (the local provider's Unix socket), `tcp` or `tls` (`skytorch serve` on loopback), or `far`.

    `far` is `tcp` with FAR_S between here and there, and between it and other servers.
    """
    if plan.stand_in:
        yield Node(torch.device("cpu"), psutil.Process())
    elif kind == "local":
        from skytorch.client import Compute

        before = {child.pid for child in psutil.Process().children(recursive=True)}
        with Compute(f"bench-{os.getpid()}", provider="local") as compute:
            children = psutil.Process().children(recursive=True)
            (server,) = [c for c in children if c.pid not in before and c.status() != psutil.STATUS_ZOMBIE]
            yield Node(compute.device("cpu"), server, compute)
    else:
        with tempfile.TemporaryDirectory() as folder, _served(kind, Path(folder)) as (process, compute):
            yield Node(compute.device("cpu"), process, compute)


@contextlib.contextmanager
def _served(kind: str, folder: Path) -> Iterator[tuple[psutil.Process, Any]]:
    from skytorch.client import Compute, init

    token = folder / "token"
    token.write_text("bench")
    token.chmod(0o600)
    flags = ["--host", "127.0.0.1", "--port", "0", "--token-file", str(token)]
    env = {**os.environ, "PYTHONPATH": f"{ROOT / 'python'}:{os.environ.get('PYTHONPATH', '')}"}
    if kind == "tls":
        flags += _certificates(folder)
        os.environ["SKYTORCH_CA_FILE"] = str(folder / "ca.pem")
    command = [sys.executable, "-m", "skytorch.cli", "serve", *flags]
    server = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        found = None
        for line in server.stdout:
            if found := re.search(r"(?:tcp|tls)://[\w.\[\]:-]+:\d+", line):
                break
        assert found, f"{command} ended before it listened"
        with contextlib.ExitStack() as stack:
            address = found.group(0)
            if kind == "far":
                address = stack.enter_context(delayed(address, FAR_S))
            init(provider="address", address=address, token="bench")
            compute = stack.enter_context(Compute(f"bench-{server.pid}", provider="address"))
            yield psutil.Process(server.pid), compute
    finally:
        init()
        os.environ.pop("SKYTORCH_CA_FILE", None)
        server.terminate()
        server.wait()


def _certificates(folder: Path) -> list[str]:
    import trustme

    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1", "localhost")
    authority.cert_pem.write_to_path(str(folder / "ca.pem"))
    issued.private_key_pem.write_to_path(str(folder / "key.pem"))
    (folder / "cert.pem").write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
    return ["--tls-cert", str(folder / "cert.pem"), "--tls-key", str(folder / "key.pem")]


def resident(process: psutil.Process) -> int:
    return process.memory_info().rss


def reset_peak(process: psutil.Process) -> None:
    Path(f"/proc/{process.pid}/clear_refs").write_text("5")


def peak(process: psutil.Process) -> int:
    """Highest resident size since reset_peak, in bytes."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1)) * 1024
