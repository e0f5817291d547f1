"""Ctrl-C during a wait raises KeyboardInterrupt at once, discards the late answer and leaves the session usable."""

from __future__ import annotations

import signal
import threading
import time

import pytest
import torch

pytestmark = pytest.mark.remote


def busy(device: torch.device) -> torch.Tensor:
    """A second or more of work for the server, issued in a moment."""
    x = torch.rand(1024, 1024, device=device)
    for _ in range(100):
        x = (x @ x).tanh()
    return x


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
    sent_at: list[float] = []

    def interrupt() -> None:
        sent_at.append(time.monotonic())
        signal.raise_signal(signal.SIGINT)

    timer = threading.Timer(0.2, interrupt)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        waits[wait]()
    timer.join()
    assert time.monotonic() - sent_at[0] < 1.5
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
