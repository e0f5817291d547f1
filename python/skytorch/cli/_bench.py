"""`skytorch bench`: a short look at round trip, operations and bandwidth of a server, against local torch.

The project's figures come from benches/, with baselines and raw TCP beside them. This is for users: is my link the
bottleneck? Each figure is the median of five rounds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from skytorch.cli._command import command

if TYPE_CHECKING:
    import torch

ROUNDS = 5
OPS = 2000
TRIPS = 200


def add(commands: Any) -> None:
    """Declare the command."""
    parser = command(
        commands,
        "bench",
        help="measure round trip, operations and bandwidth of a server",
        examples="""skytorch bench
            SKYTORCH_PROVIDER=address SKYTORCH_ADDRESS=tls://gpu-box:7777 skytorch bench --mib 256""",
        run=_run,
    )
    parser.add_argument("--mib", type=int, default=64, help="size of the copies (default: %(default)s)")


def _run(given: argparse.Namespace) -> int:
    from skytorch import backend

    backend.register()
    import torch

    from skytorch.client import Compute

    with Compute(f"bench-{os.getpid()}") as compute:
        device = compute.device()
        print(f"{torch.sky.get_device_name(device)} ({', '.join(compute.devices())})")  # type: ignore[attr-defined]
        _row("round trip (.item())", *_pair(_round_trip, device), "us", lower=True)
        _row("x = x + y, 16 floats", *_pair(_add, device), "ops/s")
        _row("x.add_(y), 16 floats", *_pair(_add_in_place, device), "ops/s")
        host = torch.empty(given.mib << 18).fill_(1.0)
        there = host.to(device)
        for title, copy in (("upload", lambda: there.copy_(host)), ("download", lambda: host.copy_(there))):
            seconds = _median(lambda copy=copy: _timed(lambda: (copy(), torch.sky.synchronize(device))))  # type: ignore[attr-defined,misc]
            print(f"{title:24}{given.mib / 1024 / seconds:12.2f} GiB/s  ({given.mib} MiB)")
    return 0


def _pair(measure: Callable[[torch.device], float], device: torch.device) -> tuple[float, float]:
    """The median on the device and on the local CPU, in interleaved rounds."""
    import torch

    cpu = torch.device("cpu")
    rounds = [(measure(device), measure(cpu)) for _ in range(ROUNDS + 1)][1:]  # the first one warms up
    return statistics.median(r[0] for r in rounds), statistics.median(r[1] for r in rounds)


def _row(title: str, remote: float, local: float, unit: str, *, lower: bool = False) -> None:
    ratio = local / remote if lower else remote / local
    print(f"{title:24}{remote:12,.1f} {unit:6} local {local:12,.1f} {unit:6} {ratio:6.2f}x local")


def _round_trip(device: torch.device) -> float:
    import torch

    x = torch.ones((), device=device)
    return _timed(lambda: [x.item() for _ in range(TRIPS)]) / TRIPS * 1e6


def _add(device: torch.device) -> float:
    import torch

    y = torch.ones(16, device=device)

    def body() -> None:
        x = torch.zeros(16, device=device)
        for _ in range(OPS):
            x = x + y
        x[0].item()

    return OPS / _timed(body)


def _add_in_place(device: torch.device) -> float:
    import torch

    x, y = torch.zeros(16, device=device), torch.ones(16, device=device)

    def body() -> None:
        for _ in range(OPS):
            x.add_(y)
        x[0].item()

    return OPS / _timed(body)


def _timed(body: Callable[[], Any]) -> float:
    started = time.perf_counter()
    body()
    return time.perf_counter() - started


def _median(measure: Callable[[], float]) -> float:
    return statistics.median([measure() for _ in range(ROUNDS + 1)][1:])
