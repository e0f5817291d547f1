"""What happens to a Compute, as it happens: `on_events=log_event` writes each event to the log, none of them twice.

On Kubernetes they are the Events of the Compute and its pod (scheduled, pulled, started, killed), on `local` the life
of the server's process. Any function of an event does in place of `log_event`.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys

import torch
from skytorch.client import Compute, log_event


async def watched(provider: str) -> list[str]:
    """The reasons of the events of one short life."""
    reasons: list[str] = []

    def note(event: object) -> None:
        log_event(event)
        reasons.append(event.reason)

    async with Compute("events", provider=provider, on_events=note) as node:
        print(torch.ones(3, device=node.device()).sum().item())
    return reasons


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--provider", default="local", help="where the server runs: local, address or kubernetes")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stdout)
    reasons = asyncio.run(watched(args.provider))
    print(f"{len(reasons)} events: {', '.join(reasons)}")
    return 0 if reasons else 1


if __name__ == "__main__":
    sys.exit(main())
