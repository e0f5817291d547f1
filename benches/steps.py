"""Training steps and decoding against local torch: an MLP with Adam, a small CNN, a Llama with a growing cache."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import torch
from torch import nn

from benches.machine import ROOT, node
from benches.report import Report
from benches.rounds import Plan, interleave

CPU = torch.device("cpu")


def mlp() -> tuple[nn.Module, tuple[int, ...], int]:
    net = nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))
    return net, (64, 256), 10


def cnn() -> tuple[nn.Module, tuple[int, ...], int]:
    net = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(64 * 8 * 8, 10),
    )  # fmt: skip
    return net, (32, 3, 32, 32), 10


def trainer(
    make: Callable[[], tuple[nn.Module, tuple[int, ...], int]], device: torch.device
) -> Callable[[int], float]:
    """A function that runs steps on inputs that lie on the device, reads the last loss, and says how long it took."""
    torch.manual_seed(0)
    net, shape, classes = make()
    net = net.to(device)
    x, y = torch.randn(shape).to(device), torch.randint(0, classes, (shape[0],)).to(device)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-4)
    loss_fn = nn.CrossEntropyLoss()

    def steps(count: int) -> float:
        started = time.perf_counter()
        for _ in range(count):
            optimizer.zero_grad()
            loss = loss_fn(net(x), y)
            loss.backward()
            optimizer.step()
        loss.item()
        return (time.perf_counter() - started) / count

    return steps


def decoder(device: torch.device, tokens: int, sampled: bool) -> Callable[[], tuple[float, list[int]]]:
    """A function that generates, and gives seconds and tokens."""
    import generate

    model = generate.small_llama().to(device)
    prompt = torch.tensor([generate.PROMPT], device=device)
    how = {"do_sample": True, "temperature": 0.9, "top_k": 50, "top_p": 0.95} if sampled else {"do_sample": False}

    def decode() -> tuple[float, list[int]]:
        torch.manual_seed(7)
        started = time.perf_counter()
        out = model.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=tokens, min_new_tokens=tokens, **how
        )
        ids = out[0].tolist()
        return time.perf_counter() - started, ids

    return decode


def run(plan: Plan, report: Report) -> None:
    sys.path.insert(0, str(ROOT / "examples"))
    with node(plan) as remote:
        report.note(f"threads: client {torch.get_num_threads()}, server {remote.threads}")
        for name, make, full, quick, target in (("MLP", mlp, 100, 20, 1.6), ("CNN", cnn, 20, 5, 1.3)):
            count = plan.count(full, quick)
            local, sky = trainer(make, CPU), trainer(make, remote.device)
            before = remote.stats()
            seconds = interleave({"local": lambda: local(count), "sky": lambda: sky(count)})  # noqa: B023 - used here
            after = remote.stats()
            ops = (after["ops"] - before["ops"]) / (6 * count)
            sent = (after["op_bytes_sent"] - before["op_bytes_sent"]) / (6 * count)
            ms = {side: value * 1e3 for side, value in seconds.items()}
            detail = f"sky {ms['sky']:.2f} ms, local {ms['local']:.2f} ms; {ops:.0f} ops, {sent:.0f} B a step"
            report.add(
                f"{name}: step time against local", seconds["sky"] / seconds["local"], at_most=target, detail=detail
            )

        tokens = plan.count(64, 16)
        for name, sampled in (("greedy", False), ("sampled", True)):
            local_decode, sky_decode = decoder(CPU, tokens, sampled), decoder(remote.device, tokens, sampled)
            same = local_decode()[1] == sky_decode()[1]
            seconds = interleave({"local": lambda: local_decode()[0], "sky": lambda: sky_decode()[0]})  # noqa: B023
            detail = f"sky {tokens / seconds['sky']:.1f} tokens/s, local {tokens / seconds['local']:.1f}"
            report.add(
                f"Llama {name}: tokens/s against local",
                seconds["local"] / seconds["sky"],
                at_least=0.7,
                detail=detail,
            )
            report.add(f"Llama {name}: tokens identical", float(same), "", at_least=1)
