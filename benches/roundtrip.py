"""One value read back: `.item()`, and an operator and then `.item()`, against raw TCP ping-pong of two processes."""

from __future__ import annotations

import statistics
import time
from contextlib import ExitStack

import torch

from benches.machine import Node, node
from benches.report import Report
from benches.rounds import Plan, interleave
from benches.sockets import raw_peer

TARGETS = {"local": (1.6, 2.0), "tcp": (2.0, 2.5)}


def item_us(remote: Node, count: int) -> float:
    x = torch.ones((), device=remote.device)
    spent = []
    for _ in range(count):
        started = time.perf_counter_ns()
        x.item()
        spent.append((time.perf_counter_ns() - started) / 1000)
    return statistics.median(spent)


def op_then_item_us(remote: Node, count: int) -> float:
    x, y = torch.zeros((), device=remote.device), torch.ones((), device=remote.device)
    spent = []
    for _ in range(count):
        started = time.perf_counter_ns()
        x = x + y
        x.item()
        spent.append((time.perf_counter_ns() - started) / 1000)
    return statistics.median(spent)


def run(plan: Plan, report: Report) -> None:
    count = plan.count(2000, 300)
    with ExitStack() as stack:
        peer = stack.enter_context(raw_peer())
        remotes = {kind: stack.enter_context(node(plan, kind)) for kind in TARGETS}
        sides = {"raw": lambda: statistics.median(peer.ping_pong(count))}
        for kind, remote in remotes.items():
            sides[f"{kind} item"] = lambda remote=remote: item_us(remote, count)
            sides[f"{kind} op"] = lambda remote=remote: op_then_item_us(remote, count)
        medians = interleave(sides)
    raw = medians["raw"]
    report.add("raw TCP ping-pong", raw, "us", detail="two processes, one byte each way")
    for kind, (item, op) in TARGETS.items():
        for what, target in (("item", item), ("op", op)):
            us = medians[f"{kind} {what}"]
            words = ".item()" if what == "item" else "op, then .item()"
            report.add(f"{kind}: {words} against raw TCP", us / raw, at_most=target, detail=f"{us:.1f} us")
