"""What a program pays before its first operator: importing SkyTorch beyond torch, and starting a local server."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import torch

from benches.machine import ROOT, node
from benches.report import Report
from benches.rounds import Plan, interleave

IMPORT = "import torch, time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"
ALL = "import time; t = time.perf_counter(); import torch; print(time.perf_counter() - t)"


def timed_import(code: str) -> float:
    env = {**os.environ, "PYTHONPATH": str(ROOT / "python"), "TORCH_DEVICE_BACKEND_AUTOLOAD": "0"}
    return float(subprocess.check_output([sys.executable, "-c", code], env=env, text=True))


def run(plan: Plan, report: Report) -> None:
    rounds = plan.count(5, 3)
    names = ("json.tool",) if plan.stand_in else ("skytorch", "skytorch.client")
    seconds = interleave(
        {name: lambda name=name: timed_import(IMPORT.format(name)) for name in names}
        | {"torch": lambda: timed_import(ALL)},
        rounds,
    )
    for name in names:
        detail = f"import torch itself: {seconds['torch']:.2f} s"
        report.add(f"import {name} beyond torch", seconds[name], "s", at_most=0.3, detail=detail)

    def start() -> float:
        started = time.perf_counter()
        with node(plan) as remote:
            assert torch.ones(1, device=remote.device).item() == 1
            return time.perf_counter() - started

    report.add("local server: start to first value", interleave({"start": start}, rounds)["start"], "s")
