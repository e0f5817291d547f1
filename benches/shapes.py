"""What a new shape of a hot operator costs the client: the operators of the three examples, each called with shapes
never seen before, and again. The difference is the price of the new shape: oracle, key, template and its encoding.

The operators are recorded on the local cpu, below autograd, while an example's step runs at many batch sizes or cache
lengths; their arguments are copied to the device; then each is called and timed there. So the list is what the
examples really run. Views cost no template and are left out.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from benches.machine import ROOT, node
from benches.report import Report
from benches.rounds import Plan

TARGET_US = 15.0
SHOWN = 8
Call = tuple[Any, tuple[Any, ...], dict[str, Any]]


class Recorder(TorchDispatchMode):
    """Keeps every operator with copies of its arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not func.is_view and func.namespace == "aten" and "detach" not in func.name():
            self.calls.append((func, _copied(args), _copied(kwargs)))
        return func(*args, **kwargs)


def _copied(value: Any) -> Any:
    return tree_map(lambda leaf: leaf.detach().clone() if isinstance(leaf, torch.Tensor) else leaf, value)


def _on(device: torch.device, value: Any) -> Any:
    def move(leaf: Any) -> Any:
        if isinstance(leaf, torch.Tensor):
            return leaf.to(device)
        return device if isinstance(leaf, torch.device) else leaf

    return tree_map(move, value)


def digits_step() -> Callable[[int], None]:
    import train_digits

    model = train_digits.DigitsNet()
    optimizer = torch.optim.AdamW(model.parameters())

    def step(size: int) -> None:
        loss = torch.nn.functional.cross_entropy(
            model(torch.rand(size, 1, 8, 8)), torch.zeros(size, dtype=torch.int64)
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def embed_step() -> Callable[[int], None]:
    import embed_text

    model = embed_text.Embedder(torch.device("cpu")).model

    @torch.no_grad()
    def step(size: int) -> None:
        ids = torch.ones(2, size, dtype=torch.int64)
        model(input_ids=ids, attention_mask=torch.ones_like(ids))

    return step


def decode_step() -> Callable[[int], None]:
    import generate

    model = generate.small_llama()

    def step(size: int) -> None:
        """A prompt of a new length and three more tokens: each of them meets a cache of a new length."""
        prompt = torch.ones(1, size, dtype=torch.int64)
        length = {"attention_mask": torch.ones_like(prompt), "max_new_tokens": 4, "min_new_tokens": 4}
        model.generate(prompt, do_sample=True, temperature=0.9, top_k=50, top_p=0.95, **length)

    return step


EXAMPLES = {
    "train_digits forward, backward, step": digits_step,
    "embed_text forward": embed_step,
    "generate prefill and decode": decode_step,
}


def recorded(step: Callable[[int], None], sizes: range) -> list[list[Call]]:
    """For each size, the operators of a step; only those whose shapes change from one size to another."""
    runs = []
    step(sizes.start - 1)  # whatever happens only once
    for size in sizes:
        with Recorder() as recorder:
            step(size)
        runs.append(recorder.calls)
    names = [[call[0] for call in run] for run in runs]
    assert all(name == names[0] for name in names), "the operators of a step depend on its size"
    changing = [i for i in range(len(names[0])) if len({_shapes(run[i]) for run in runs}) == len(runs)]
    return [[run[i] for i in changing] for run in runs]


def _shapes(call: Call) -> tuple[Any, ...]:
    """What of a call makes it a new shape. Floats travel beside a template and do not."""
    leaves = [leaf for leaf in tree_flatten(call[1:])[0] if not isinstance(leaf, float)]
    return tuple(tuple(leaf.shape) if isinstance(leaf, torch.Tensor) else str(leaf) for leaf in leaves)


def timed(calls: list[Call], device: torch.device, synchronize: Callable[[], None]) -> list[float]:
    """Microseconds of this thread's processor time for each call: what the client pays, whoever else is running."""
    there = [(func, _on(device, args), _on(device, kwargs)) for func, args, kwargs in calls]
    synchronize()
    kept, spent = [], []
    for func, args, kwargs in there:
        started = time.thread_time_ns()
        result = func(*args, **kwargs)
        spent.append((time.thread_time_ns() - started) / 1000)
        kept.append(result)
    synchronize()
    return spent


def by_operator(runs: list[list[Call]]) -> dict[str, list[Call]]:
    """The calls of each operator, every shape once. Timed in a row: the operator is hot, its shape is new."""
    found: dict[str, dict[tuple[Any, ...], Call]] = defaultdict(dict)
    for call in (call for run in runs for call in run):
        found[call[0].name()].setdefault(_shapes(call), call)
    return {operator: list(calls.values()) for operator, calls in found.items()}


def run(plan: Plan, report: Report) -> None:
    sys.path.insert(0, str(ROOT / "examples"))
    count = plan.count(12, 7)
    with node(plan) as remote, torch.no_grad():
        if not plan.stand_in:
            torch.ops.skytorch.oracle_reset()
        for name, make in EXAMPLES.items():
            with torch.enable_grad():
                runs = recorded(make(), range(33, 33 + 4 * count, 4))
            first, again = {}, {}
            for operator, calls in by_operator(runs).items():
                first[operator] = timed(calls, remote.device, remote.synchronize)
                again[operator] = timed(calls, remote.device, remote.synchronize)
            seen = {operator: statistics.median(values) for operator, values in again.items()}
            cost = {operator: statistics.median(values) for operator, values in first.items()}
            dearest = sorted(cost, key=cost.get, reverse=True)
            worst, middle, hit = dearest[0], statistics.median(cost.values()), statistics.median(seen.values())
            detail = f"{worst} of {len(cost)} operators; median {middle:.1f}; seen shape {hit:.1f}"
            report.add(f"{name}: dearest operator", cost[worst], "us", at_most=TARGET_US, detail=detail)
            shown = ", ".join(f"{o.removeprefix('aten::')} {cost[o]:.1f} ({seen[o]:.1f})" for o in dearest[:SHOWN])
            report.note(f"{name}: us of a new shape (and of a seen one): {shown}")
        if not plan.stand_in:
            lines = torch.ops.skytorch.oracle_report()
            report.add("operators resolved by neither at::meta nor a rule", len(lines), "", detail="listed above")
            report.note(
                "not from at::meta nor from a rule:\n" + ("\n".join(f"  {line}" for line in lines) or "  none")
            )
