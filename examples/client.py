"""A Compute without the decorator: make it ready, look at it, suspend and resume it, delete it.

What the server held is gone after `suspend`; the Compute keeps its name, and on Kubernetes its volumes and address.
`async with Compute(...)` would do the first and the last step.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

import torch
from skytorch.client import Compute


async def life(provider: str) -> bool:
    node = Compute("client", provider=provider)
    try:
        await node.ready(timeout=300)
        print(f"{node!r} has {', '.join(node.devices())}")
        before = torch.ones(1000, device=node.device()).sum().item()
        async for snapshot in node.metrics():
            print(snapshot)
            break

        await node.suspend()
        condition = next(c for c in node.resource.status.conditions if c.type == "Ready")
        print(f"suspended: Ready is {condition.status}, {condition.reason}")

        await node.resume()
        after = torch.ones(1000, device=node.device()).sum().item()
        print(f"resumed: {node!r}, the sum is {after:.0f} as before")
        return before == after == 1000
    finally:
        await node.delete(grace_period_seconds=10)
        print(f"deleted: {node!r}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--provider", default="local", help="where the server runs: local, address or kubernetes")
    args = parser.parse_args()
    return 0 if asyncio.run(life(args.provider)) else 1


if __name__ == "__main__":
    sys.exit(main())
