"""`make soak MINUTES=30`: one session trains for as long as asked while its connections are cut at random.

Rounds of the digits step, each from the same seed, so each must give the digest of an undisturbed round. Between
rounds nothing is cut, and both processes are measured: resident memory (its slope over the rounds after the first
third), file descriptors and threads. The client is a process of its own, so that the proxy is not measured with it.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import linear_regression

import psutil
from proxy import Proxy
from rich.console import Console
from rich.table import Table
from servers import environment, serve
from stage import ONE_THREAD

MIB = 1 << 20
BATCHES = 100  # of a round
CUT_AFTER_S = (0.05, 1.5)
SETTLED_S = 1.0  # of quiet before a measurement
MOST_MIB_PER_HOUR = 30.0  # a leak of a KiB for each of the thousands of cuts of an hour would be less than half of it


@dataclass(frozen=True)
class Sample:
    at_s: float
    rss_mib: float
    descriptors: int
    threads: int


def client(address: str, token: str) -> None:
    """Waits for a line, trains a round, answers with its digest; one session for all."""
    import torch
    from skytorch.client import Compute, init
    from workloads import training

    torch.set_num_threads(1)
    init(provider="address", address=address, token=token)
    with Compute("soak", provider="address") as node:
        for _ in sys.stdin:
            print(training([node.device()], BATCHES), flush=True)


class Cutter:
    """Cuts every connection of the proxy at random moments while it is let."""

    def __init__(self, proxy: Proxy) -> None:
        self.cuts = 0
        self._proxy = proxy
        self._let, self._lock = threading.Event(), threading.Lock()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        moments = random.Random(1)
        never = threading.Event()
        while True:
            never.wait(moments.uniform(*CUT_AFTER_S))
            with self._lock:
                if self._let.is_set():
                    self.cuts += self._proxy.cut_all()

    def let(self, cut: bool) -> None:
        with self._lock:
            self._let.set() if cut else self._let.clear()


def measure(process: psutil.Process, started: float) -> Sample:
    """What the process has when it is quiet: the least of a few looks, since a lane may just be closing."""
    looks = []
    until = time.monotonic() + SETTLED_S
    while time.monotonic() < until:
        with process.oneshot():
            looks.append((process.memory_info().rss / MIB, process.num_fds(), process.num_threads()))
        threading.Event().wait(SETTLED_S / 10)
    rss, descriptors, threads = (min(column) for column in zip(*looks, strict=True))
    return Sample(time.monotonic() - started, rss, descriptors, threads)


def soak(minutes: float, folder: Path, console: Console) -> bool:
    started = time.monotonic()
    samples: dict[str, list[Sample]] = {"client": [], "server": []}
    wrong = rounds = 0
    with serve(folder, "--port", "0", env=ONE_THREAD) as served:
        host, _, port = served.address.removeprefix("tcp://").rpartition(":")
        proxy = Proxy((host, int(port)))
        cutter = Cutter(proxy)
        env = environment(**ONE_THREAD)
        env["PYTHONPATH"] = f"{Path(__file__).parents[1]}:{env['PYTHONPATH']}"
        program = subprocess.Popen(
            [sys.executable, __file__, "--client", proxy.address, served.token],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env,
        )  # fmt: skip
        sides = {"client": psutil.Process(program.pid), "server": psutil.Process(served.process.pid)}

        def one_round() -> str:
            print("go", file=program.stdin, flush=True)
            return program.stdout.readline().strip()

        expected = one_round()
        while expected and time.monotonic() - started < minutes * 60:
            cutter.let(True)
            found = one_round()
            cutter.let(False)
            rounds += 1
            wrong += found != expected
            if not found:
                break
            for side, process in sides.items():
                samples[side].append(measure(process, started))
        program.stdin.close()
        ended = program.wait(60)
        proxy.close()
    table = Table(
        "side", "memory at first", "at last", "slope", "descriptors", "threads", title=f"{minutes:g} minutes"
    )
    good = ended == 0 and wrong == 0 and rounds > 0 and cutter.cuts > 0
    for side, taken in samples.items():
        later = taken[len(taken) // 3 :]
        if len(later) < 2:
            good = False
            continue
        slope = linear_regression([s.at_s / 3600 for s in later], [s.rss_mib for s in later]).slope
        counts = {name: (getattr(later[0], name), getattr(later[-1], name)) for name in ("descriptors", "threads")}
        good = good and slope <= MOST_MIB_PER_HOUR and all(last <= first for first, last in counts.values())
        table.add_row(
            side, f"{later[0].rss_mib:.1f} MiB", f"{later[-1].rss_mib:.1f} MiB", f"{slope:+.1f} MiB/h",
            *(f"{first} -> {last}" for first, last in counts.values()),
        )  # fmt: skip
    console.print(table)
    console.print(f"{rounds} rounds of {BATCHES} batches, {cutter.cuts} connections cut, {wrong} wrong results")
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--client", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.client:
        client(*args.client)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        return 0 if soak(args.minutes, Path(folder), Console(width=120)) else 1


if __name__ == "__main__":
    sys.exit(main())
