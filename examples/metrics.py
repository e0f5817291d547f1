"""What a server measures, while it works: processor, memory, GPUs, operators run, bytes each way.

`on_metrics=` calls a function about every second; `Compute.metrics()` is the same as an async iterator. Here the
iterator runs as a task beside the program, which gives it room with `await`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys

import torch
from skytorch.client import Compute, MetricsSnapshot


async def measured(provider: str, rounds: int, interval_s: float) -> list[MetricsSnapshot]:
    """The snapshots taken while a Compute multiplied matrices."""
    snapshots: list[MetricsSnapshot] = []

    async def follow(node: Compute) -> None:
        async for snapshot in node.metrics(interval=interval_s):
            print(snapshot)
            snapshots.append(snapshot)

    async with Compute("metrics", provider=provider) as node:
        following = asyncio.create_task(follow(node))
        x = torch.eye(256, device=node.device())
        while len(snapshots) < rounds:
            for _ in range(20):
                x = x @ x
            assert x.trace().item() == 256  # the event loop stands still, and measurements arrive all the same
            await asyncio.sleep(interval_s / 4)  # the task prints those that have
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following
    return snapshots


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--provider", default="local", help="where the server runs: local, address or kubernetes")
    parser.add_argument("--rounds", type=int, default=4, help="snapshots to wait for")
    parser.add_argument("--interval", type=float, default=0.5, help="seconds between two snapshots")
    args = parser.parse_args()
    snapshots = asyncio.run(measured(args.provider, args.rounds, args.interval))
    executed = [snapshot.get("ops.executed") or 0 for snapshot in snapshots]
    print(f"operators run, snapshot by snapshot: {', '.join(f'{n:,.0f}' for n in executed)}")
    return 0 if executed == sorted(executed) and executed[-1] > executed[0] else 1


if __name__ == "__main__":
    sys.exit(main())
