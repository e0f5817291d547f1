"""Operators per second of small tensors, end to end, against local torch; and what an operator costs in bytes.

The server is kept up and the final value is read inside the measured time.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from benches.machine import node
from benches.report import Report
from benches.rounds import Plan, interleave

CPU = torch.device("cpu")
MIXED_SIZE = 16
MIXED_OPS = 15  # operators of one mixed_step, its views not counted


def add_chain(device: torch.device, count: int) -> float:
    x, y = torch.zeros(4, 4, device=device), torch.ones(4, 4, device=device)
    x.sum().item()
    started = time.perf_counter()
    for _ in range(count):
        x = x + y
    assert x[0, 0].item() == count
    return count / (time.perf_counter() - started)


def add_in_place(device: torch.device, count: int) -> float:
    x, y = torch.zeros(4, 4, device=device), torch.ones(4, 4, device=device)
    x.sum().item()
    started = time.perf_counter()
    for _ in range(count):
        x.add_(y)
    assert x[0, 0].item() == count
    return count / (time.perf_counter() - started)


def mixed_step(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    h = torch.relu(torch.addmm(b, x, w))
    left, right = h.chunk(2, dim=1)
    h = torch.cat((right, left), dim=1).softmax(dim=1)
    h.mul_(4.0)
    h = (h - h.sum(dim=0, keepdim=True)).transpose(0, 1)
    h = h.exp().sqrt_()
    h = torch.where(h > 1.0, h, b).contiguous()
    return torch.lerp(x, h, 0.1).clamp_(-1.0, 1.0)


def mixed(device: torch.device, count: int) -> float:
    make = torch.Generator().manual_seed(0)
    x, w, b = (torch.randn(MIXED_SIZE, MIXED_SIZE, generator=make).to(device) for _ in range(3))
    x.sum().item()
    started = time.perf_counter()
    for _ in range(count):
        x = mixed_step(x, w, b)
    x.sum().item()
    return count * MIXED_OPS / (time.perf_counter() - started)


FIGURES: dict[str, tuple[Callable[[torch.device, int], float], int, int, float]] = {
    "x = x + y": (add_chain, 100_000, 10_000, 0.6),
    "x.add_(y)": (add_in_place, 100_000, 10_000, 0.45),
    "mixed": (mixed, 6_000, 600, 0.7),
}


def run(plan: Plan, report: Report) -> None:
    with node(plan) as remote:
        report.note(f"threads: client {torch.get_num_threads()}, server {remote.threads}")
        for name, (work, full, quick, target) in FIGURES.items():
            count = plan.count(full, quick)
            rates = interleave(
                {
                    "local": lambda work=work, count=count: work(CPU, count),
                    "sky": lambda work=work, count=count: work(remote.device, count),
                }
            )
            detail = f"sky {rates['sky']:,.0f} ops/s, local {rates['local']:,.0f}"
            report.add(f"{name}: rate against local", rates["sky"] / rates["local"], at_least=target, detail=detail)

            before = remote.stats()
            work(remote.device, count)
            after = remote.stats()
            sent, issued = after["op_bytes_sent"] - before["op_bytes_sent"], after["ops"] - before["ops"]
            if issued:
                detail = f"{sent:,} bytes for {issued:,} ops, frees included"
                report.add(f"{name}: bytes per op", sent / issued, "B", at_most=16, detail=detail)
            elif not plan.stand_in:
                report.failed(f"{name}: the session counted no ops")
