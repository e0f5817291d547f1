"""Memory of both processes over many operators: flat, or it is a leak. `--long` runs ten million of them."""

from __future__ import annotations

import psutil
import torch

from benches.machine import MIB, node, resident
from benches.report import Report
from benches.rounds import Plan

SAMPLES = 10
FLAT_MIB = 4.0  # growth from the first tenth to the last that still counts as flat


def run(plan: Plan, report: Report) -> None:
    total = 10_000_000 if plan.long else plan.count(1_000_000, 200_000)
    with node(plan) as remote:
        x, y = torch.zeros(4, 4, device=remote.device), torch.ones(4, 4, device=remote.device)
        seen: list[tuple[float, float]] = []
        for _ in range(SAMPLES):
            for _ in range(total // SAMPLES // 2):
                x = x + y
                x.sub_(y)
            x.sum().item()
            seen.append((resident(psutil.Process()) / MIB, resident(remote.process) / MIB))
        for side, index in (("client", 0), ("server", 1)):
            curve = [sample[index] for sample in seen]
            detail = "MiB: " + " ".join(f"{value:.1f}" for value in curve)
            report.add(
                f"{side}: growth over {total:,} ops", curve[-1] - curve[0], "MiB", at_most=FLAT_MIB, detail=detail
            )
