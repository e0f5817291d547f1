"""The shortest program: a function that runs with a Compute of its own, which is gone when it ends.

`--provider local` runs the server in a child process here, `kubernetes` in a pod. The decorator takes the keywords of
Compute; the function's own arguments follow the Compute.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

import torch
from skytorch.client import Compute, compute


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--provider", default="local", help="where the server runs: local, address or kubernetes")
    args = parser.parse_args()

    @compute("decorator", provider=args.provider)
    async def gram(node: Compute, size: int) -> torch.Tensor:
        device = node.device()  # the best device that the server has
        x = torch.arange(size * size, device=device, dtype=torch.float32).view(size, size)
        return (x @ x.T).cpu()

    product = asyncio.run(gram(4))
    print(product)
    x = torch.arange(16.0).view(4, 4)
    return 0 if torch.equal(product, x @ x.T) else 1


if __name__ == "__main__":
    sys.exit(main())
