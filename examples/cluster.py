"""Several Computes with one life: applied, awaited and deleted together.

Each takes a share of the work at the same time, since issuing an operator does not wait for its result; the partial
results meet on the first one, from server to server.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

import torch
from skytorch.client import Cluster, Compute

TERMS = 2_000_000


async def pi(provider: str, members: int) -> float:
    """Leibniz' series, a slice of its terms to each Compute."""
    async with Cluster(*(Compute(f"cluster-{i}", provider=provider) for i in range(members))) as cluster:
        print(cluster)
        parts = []
        for i, node in enumerate(cluster):
            n = torch.arange(i, TERMS, members, device=node.device(), dtype=torch.float64)
            parts.append(((1 - 2 * (n % 2)) / (2 * n + 1)).sum())
        first = cluster[0].device()
        return 4 * torch.stack([part.to(first) for part in parts]).sum().item()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--provider", default="local", help="where the servers run: local, address or kubernetes")
    parser.add_argument("--members", type=int, default=2)
    args = parser.parse_args()
    result = asyncio.run(pi(args.provider, args.members))
    print(f"pi is about {result:.6f}, summed on {args.members} servers")
    return 0 if abs(result - torch.pi) < 1e-6 else 1


if __name__ == "__main__":
    sys.exit(main())
