"""Ctrl-C during a wait raises KeyboardInterrupt at once, discards the late answer and leaves the session usable."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable

import pytest
import torch
from servers import local_compute

pytestmark = pytest.mark.remote


def busy(device: torch.device) -> torch.Tensor:
    """A second or more of work for the server, issued in a moment."""
    x = torch.rand(1024, 1024, device=device)
    for _ in range(100):
        x = (x @ x).tanh()
    return x


def interrupted(wait: Callable[[], object], after_s: float = 0.5) -> float:
    """Ctrl-C `after_s` into `wait`; seconds from then until it is raised."""
    sent_at: list[float] = []

    def interrupt() -> None:
        sent_at.append(time.monotonic())
        signal.raise_signal(signal.SIGINT)

    timer = threading.Timer(after_s, interrupt)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        wait()
    timer.join()
    return time.monotonic() - sent_at[0]


@pytest.mark.parametrize("wait", ["item", "cpu", "synchronize", "nonzero"])
def test_ctrl_c_during_a_wait(device, wait):
    marker = torch.arange(5.0, device=device)
    torch.sky.synchronize(device)
    x = busy(device)
    waits = {
        "item": lambda: x.sum().item(),
        "cpu": lambda: x.cpu(),
        "synchronize": lambda: torch.sky.synchronize(device),
        "nonzero": lambda: x.nonzero(),
    }
    assert interrupted(waits[wait], after_s=0.2) < 1.5
    assert marker.tolist() == [0, 1, 2, 3, 4]  # the late answer is not taken for this one
    assert (marker + 1).sum().item() == 15


def test_other_threads_run_during_a_wait(device):
    """The GIL is released: a counter in another thread goes on while this one waits."""
    torch.sky.synchronize(device)
    x = busy(device)
    counted, stop = [0], threading.Event()

    def count() -> None:
        while not stop.is_set():
            counted[0] += 1

    thread = threading.Thread(target=count)
    thread.start()
    before = counted[0]
    started = time.monotonic()
    x.sum().item()
    waited = time.monotonic() - started
    during = counted[0] - before
    stop.set()
    thread.join()
    assert during > 1000 * waited, f"{during} turns in {waited:.2f} s"


@pytest.mark.slow
@pytest.mark.parametrize("wait", ["back-pressure", "data-dependent"])
def test_ctrl_c_where_a_server_stands_still(wait):
    """The server is stopped, so that the wait would last; let go on, it has lost nothing."""
    with local_compute("still") as (node, server):
        device = node.device()
        x = torch.arange(4.0, device=device)
        small, there = torch.ones(1024), torch.zeros(1024, device=device)
        torch.sky.synchronize(device)

        def press() -> None:
            while True:
                there.copy_(small)

        waits = {
            "back-pressure": press,
            "data-dependent": lambda: x.nonzero(),
        }
        server.suspend()
        try:
            assert interrupted(waits[wait]) < 1.5
        finally:
            server.resume()
        assert (x + 1).tolist() == [1, 2, 3, 4]


@pytest.mark.slow
def test_ctrl_c_while_a_compute_is_left():
    """Ctrl-C ends the wait for what was issued; the server is taken away all the same."""
    leaving = contextlib.ExitStack()
    node, server = leaving.enter_context(local_compute("left"))
    busy(node.device())
    assert interrupted(leaving.close) < 30
    assert not server.is_running()
