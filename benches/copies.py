"""A loop of copies from server to server, as after each step of a trainer, against one copy of as many bytes.

`far` is a server behind a relay that holds every byte back for 2 ms each way: a loop that waits for each copy would
take a round trip for each.
"""

from __future__ import annotations

import time
from contextlib import ExitStack

import torch

from benches.machine import Node, node
from benches.report import Report
from benches.rounds import Plan, interleave

TENSORS, FLOATS = 100, 16 << 10  # of 64 KiB


def copies_ms(source: Node, target: Node, parts: list[tuple[torch.Tensor, torch.Tensor]]) -> float:
    for node_ in (source, target):
        node_.synchronize()
    started = time.perf_counter()
    for p, q in parts:
        q.data.copy_(p.data)
    target.synchronize()
    return (time.perf_counter() - started) * 1000


def pairs(source: Node, target: Node, tensors: int, floats: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [
        (torch.full((floats,), float(n), device=source.device), torch.zeros(floats, device=target.device))
        for n in range(tensors)
    ]


def run(plan: Plan, report: Report) -> None:
    with ExitStack() as stack:
        source = stack.enter_context(node(plan, "tcp"))
        targets = {kind: stack.enter_context(node(plan, kind)) for kind in ("tcp", "far")}
        sides = {}
        records = {}
        for kind, target in targets.items():
            loop, whole = pairs(source, target, TENSORS, FLOATS), pairs(source, target, 1, TENSORS * FLOATS)
            sides[f"{kind} loop"] = lambda t=target, p=loop: copies_ms(source, t, p)
            sides[f"{kind} whole"] = lambda t=target, p=whole: copies_ms(source, t, p)
            copies_ms(source, target, loop)  # defines the templates
            before = source.stats().get("records", 0)
            copies_ms(source, target, loop)
            records[kind] = source.stats().get("records", 0) - before - 1  # one is the synchronization
        medians = interleave(sides)
        wrong = [kind for kind, target in targets.items() if target.compute and records[kind] > TENSORS // 2]
    for kind in targets:
        loop_ms, whole_ms = medians[f"{kind} loop"], medians[f"{kind} whole"]
        detail = f"{loop_ms:.1f} ms, {whole_ms:.1f} ms; {records[kind]} transfers"
        report.add(
            f"{kind}: {TENSORS} copies of 64 KiB against one of all", loop_ms / whole_ms, at_most=3.0, detail=detail
        )
    if wrong:
        report.failed(f"the copies did not travel together: {', '.join(wrong)}")
