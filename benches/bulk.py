"""Uploads and downloads of 1 MiB to 1 GiB on every transport, against raw TCP and memcpy in the same rounds.

And by how much the peak memory of either side grows beyond the tensor itself. The subtle thing: on a machine whose
memory was not touched yet (a fresh virtual machine) Unix sockets crawl, raw ones too, until the kernel's pages have
been round once; so they are sent round first, and raw Unix figures stand beside (docs/decisions/0003).
"""

from __future__ import annotations

import gc
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack

import psutil
import torch

from benches.machine import MIB, Node, node, peak, reset_peak, resident
from benches.report import Report
from benches.rounds import Plan, interleave
from benches.sockets import RawPeer, raw_peer

SIZES_MIB = (1, 64, 256, 1024)
TRANSPORTS = {"local": 0.6, "tcp": 0.6, "tls": 0.35}  # of raw TCP, for 64 MiB and more
PEAK_MIB = 64
TOUCH_AT_LEAST, TOUCH_AT_MOST = 16, 128  # times 64 MiB


def rate(size: int, times: int, work: Callable[[], None], finish: Callable[[], None] = lambda: None) -> float:
    """GB/s of `times` copies of `size` bytes."""
    started = time.perf_counter()
    for _ in range(times):
        work()
    finish()
    return size * times / (time.perf_counter() - started) / 1e9


def touch_socket_pages(peer: RawPeer, report: Report) -> None:
    """Send bytes through a Unix socket until its pace has settled: the kernel's free pages have been used then."""
    view = memoryview(bytearray(64 * MIB))
    rates: list[float] = []
    while len(rates) < TOUCH_AT_MOST and (len(rates) < TOUCH_AT_LEAST or min(rates[-8:]) < 0.7 * max(rates)):
        rates.append(len(view) / peer.upload(view) / 1e9)
    report.note(
        f"a raw Unix socket, {len(rates)} x 64 MiB first: slowest {min(rates):.2f} GB/s, last {rates[-1]:.2f} GB/s"
    )


def sides(
    peer: RawPeer, unix: RawPeer, remotes: dict[str, Node], size: int, times: int
) -> dict[str, Callable[[], float]]:
    source, target = torch.ones(size, dtype=torch.uint8), torch.zeros(size, dtype=torch.uint8)
    views = memoryview(source.numpy()), memoryview(target.numpy())
    made: dict[str, Callable[[], float]] = {
        "memcpy": lambda: rate(size, times, lambda: target.copy_(source)),
        "raw up": lambda: rate(size, times, lambda: peer.upload(views[0])),
        "raw down": lambda: rate(size, times, lambda: peer.download(views[1])),
        "unix up": lambda: rate(size, times, lambda: unix.upload(views[0])),
        "unix down": lambda: rate(size, times, lambda: unix.download(views[1])),
    }
    for kind, remote in remotes.items():
        there = torch.zeros(size, dtype=torch.uint8, device=remote.device)
        made[f"{kind} up"] = lambda there=there, remote=remote: rate(
            size, times, lambda: there.copy_(source), remote.synchronize
        )
        made[f"{kind} down"] = lambda there=there: rate(size, times, lambda: target.copy_(there))
    return made


def run(plan: Plan, report: Report) -> None:
    with ExitStack() as stack:
        peer, unix = stack.enter_context(raw_peer()), stack.enter_context(raw_peer(socket.socketpair))
        remotes = {kind: stack.enter_context(node(plan, kind)) for kind in TRANSPORTS}
        for kind, remote in remotes.items():  # first, while neither side has pages left over from earlier tensors
            if not plan.stand_in:
                peaks(kind, remote, plan.count(1024, 64) * MIB, report)
        touch_socket_pages(unix, report)
        for mib in SIZES_MIB[: plan.count(4, 2)]:
            times = max(1, plan.count(128, 32) // mib)
            rates = interleave(sides(peer, unix, remotes, mib * MIB, times), rounds=3 if mib > 256 else 5)
            gc.collect()
            raw_up, raw_down = rates["raw up"], rates["raw down"]
            report.note(
                f"{mib} MiB: GB/s of memcpy {rates['memcpy']:.1f}, of raw TCP {raw_up:.2f} up, {raw_down:.2f} down, "
                f"of raw Unix {rates['unix up']:.2f} up, {rates['unix down']:.2f} down"
            )
            for kind, target in TRANSPORTS.items():
                for way in ("up", "down"):
                    got, raw = rates[f"{kind} {way}"], rates[f"raw {way}"]
                    goal = {"at_least": target} if mib >= 64 else {}
                    detail = f"{got:.2f} GB/s; memcpy ratio {got / rates['memcpy']:.2f}"
                    report.add(f"{kind} {way} {mib} MiB against raw TCP", got / raw, detail=detail, **goal)


def peaks(kind: str, remote: Node, size: int, report: Report) -> None:
    """Growth beyond what the tensor itself takes on the side where it arrives."""
    client = psutil.Process()

    def growth(work: Callable[[], torch.Tensor]) -> tuple[float, float, torch.Tensor]:
        before = [resident(process) for process in (client, remote.process)]
        for process in (client, remote.process):
            reset_peak(process)
        result = work()
        remote.synchronize()
        after = [peak(process) for process in (client, remote.process)]
        return (after[0] - before[0]) / MIB, (after[1] - before[1]) / MIB, result

    gc.collect()
    source = torch.ones(size, dtype=torch.uint8)
    client_up, server_up, there = growth(lambda: source.to(remote.device))
    client_down, server_down, back = growth(there.cpu)
    assert back[-1].item() == 1
    mib = size // MIB
    for name, grown, own in (
        ("upload, client", client_up, 0),
        ("upload, server", server_up, mib),
        ("download, client", client_down, mib),
        ("download, server", server_down, 0),
    ):
        detail = f"grew by {grown:.0f} MiB, the tensor is {own} MiB there"
        report.add(
            f"{kind}: peak memory beyond the tensor, {mib} MiB {name}",
            grown - own,
            "MiB",
            at_most=PEAK_MIB,
            detail=detail,
        )
