"""Tensors come and go by the million: memory on both sides follows what is alive; nothing outlives its process."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time

import psutil
import pytest
import torch
from servers import local_compute, run_python

pytestmark = pytest.mark.remote
MIB = 1 << 20


def test_ten_thousand_live_tensors(device):
    tensors = [torch.full((3,), float(number), device=device) for number in range(10_000)]
    assert len({tensor.untyped_storage().data_ptr() for tensor in tensors}) == 10_000
    total = torch.stack(tensors).sum(dim=0)
    assert total.tolist() == [sum(range(10_000))] * 3
    for number in (0, 1, 5_000, 9_999):
        assert tensors[number].tolist() == [number] * 3
    del tensors[::2]
    again = [torch.full((3,), -1.0, device=device) for _ in range(5_000)]
    assert tensors[-1].tolist() == [9_999] * 3  # odd ones live, whatever took the place of the even ones
    assert tensors[0].tolist() == [1] * 3
    assert again[-1].tolist() == [-1] * 3


def test_freed_on_del(device):
    torch.sky.synchronize(device)
    before = torch.sky.memory_allocated(device)
    x = torch.ones(4 * MIB, device=device)
    view = x[10:]
    torch.sky.synchronize(device)
    assert torch.sky.memory_allocated(device) - before == 16 * MIB
    del x
    torch.sky.synchronize(device)
    assert torch.sky.memory_allocated(device) - before == 16 * MIB, "the view keeps it alive"
    del view
    torch.sky.synchronize(device)
    assert torch.sky.memory_allocated(device) == before
    assert torch.sky.max_memory_allocated(device) >= before + 16 * MIB


def test_cycles_are_collected(device):
    gc.collect()  # those of earlier tests
    torch.sky.synchronize(device)
    before = torch.sky.memory_allocated(device)
    holder = [torch.ones(MIB, device=device)]
    holder.append(holder)
    del holder
    gc.collect()
    torch.sky.synchronize(device)
    assert torch.sky.memory_allocated(device) == before


def test_freed_from_another_thread(device):
    torch.sky.synchronize(device)
    before = torch.sky.memory_allocated(device)
    holder = [torch.ones(MIB, device=device)]
    thread = threading.Thread(target=holder.clear)
    thread.start()
    thread.join()
    torch.sky.synchronize(device)
    assert torch.sky.memory_allocated(device) == before


def test_pointers_are_distinct_and_not_null(device):
    x, y = torch.zeros(3, device=device), torch.zeros(3, device=device)
    assert x.data_ptr() != 0
    assert x.data_ptr() != y.data_ptr()
    assert x[1:].data_ptr() == x.data_ptr() + 4


def test_memory_stays_flat():
    """300,000 ops with their tensors, after a warm-up of 100,000: neither process grows by more than 8 MiB."""
    with local_compute("flat") as (node, server):
        x, y = torch.zeros(4, 4, device=node.device()), torch.ones(4, 4, device=node.device())

        def run(count: int) -> None:
            nonlocal x
            for _ in range(count):
                x = x + y
            x.sum().item()

        run(100_000)
        before = [process.memory_info().rss for process in (psutil.Process(), server)]
        run(300_000)
        after = [process.memory_info().rss for process in (psutil.Process(), server)]
    grown = [(b - a) / MIB for a, b in zip(before, after, strict=True)]
    assert max(grown) < 8, f"client grew by {grown[0]:.1f} MiB, server by {grown[1]:.1f} MiB"


@pytest.mark.alone
def test_server_killed_is_connection_lost_within_two_seconds():
    import skytorch

    with pytest.raises(skytorch.ConnectionLost), local_compute("killed") as (node, server):  # noqa: PT012
        x = torch.ones(3, device=node.device())
        assert x.sum().item() == 3
        os.kill(server.pid, signal.SIGKILL)
        started = time.monotonic()
        with pytest.raises(skytorch.ConnectionLost):
            (x + 1).cpu()
        assert time.monotonic() - started < 2
        with pytest.raises(skytorch.ConnectionLost):  # and every use after that
            x.cpu()
        assert not node.is_ready()
        x.cpu()


@pytest.mark.slow
@pytest.mark.alone
def test_server_killed_during_a_wait():
    import skytorch

    with pytest.raises(skytorch.ConnectionLost), local_compute("killed-waiting") as (node, server):  # noqa: PT012
        x = torch.rand(1500, 1500, device=node.device())
        torch.sky.synchronize(node.device())
        for _ in range(400):  # tens of seconds of work
            x = (x @ x).tanh()
        killed_at: list[float] = []

        def kill() -> None:
            killed_at.append(time.monotonic())
            os.kill(server.pid, signal.SIGKILL)

        timer = threading.Timer(0.5, kill)
        timer.start()
        try:
            x.sum().item()
        finally:
            timer.join()
            assert time.monotonic() - killed_at[0] < 2


@pytest.mark.slow
def test_server_ends_with_its_parent():
    """Whatever way the parent ends: here by SIGKILL."""
    done = run_python(
        "import os, signal, psutil, torch\n"
        "from skytorch.client import Compute\n"
        "node = Compute('orphan', provider='local').__enter__()\n"
        "torch.ones(3, device=node.device()).sum().item()\n"
        "print([child.pid for child in psutil.Process().children(recursive=True)], flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    pids = [int(pid) for pid in done.stdout.strip().strip("[]").split(",")]
    _, alive = psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], timeout=5)
    assert not alive


def test_forked_child_refuses(device):
    """The child marks the session dead: it raises, sends nothing, and the parent's session goes on."""
    import skytorch

    x = torch.ones(3, device=device)
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        outcome = "no error"
        try:
            try:
                (x + 1).cpu()
            except skytorch.SkyTorchError as error:
                outcome = f"{type(error).__name__}: {error}"
            del x
            os.write(write_end, outcome.encode())
        finally:
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end) as pipe:
        outcome = pipe.read()
    os.waitpid(pid, 0)
    assert outcome.startswith("ForkedSession"), outcome
    assert "fork" in outcome
    assert (x + 1).sum().item() == 6


@pytest.mark.slow
def test_exit_without_leaving_the_compute():
    """The interpreter's exit flushes, and logs what nobody has read."""
    done = run_python(
        "import torch\n"
        "from skytorch.client import Compute\n"
        "node = Compute('left-open', provider='local').__enter__()\n"
        "x = torch.arange(3.0, device=node.device())\n"
        "y = x[torch.tensor([5], device=node.device())]\n"
        "print('end', flush=True)\n"
    )
    assert done.stdout.strip() == "end", done.stderr
    assert done.returncode == 0, done.stderr
    assert "index" in done.stderr


def test_default_device_opens_the_local_provider():
    done = run_python(
        "import torch, skytorch\n"
        "x = torch.ones(3, device='sky')\n"
        "print((x + 1).sum().item(), torch.sky.device_count(), torch.accelerator.device_count())\n",
        SKYTORCH_PROVIDER="local",
    )
    assert done.stdout.strip() == "6.0 1 1", done.stderr


@pytest.mark.slow
def test_many_devices_one_after_another():
    """Sixteen sky devices at most at a time; a closed one frees its place."""
    done = run_python(
        "import torch\n"
        "from skytorch.client import Compute\n"
        "for turn in range(3):\n"
        "    with Compute('again', provider='local') as node:\n"
        "        x = torch.ones(2, device=node.device()) * turn\n"
        "        print(x.tolist(), node.device().index, torch.sky.device_count())\n"
    )
    assert done.stdout.splitlines() == [f"[{turn}.0, {turn}.0] 0 1" for turn in range(3)], done.stderr


@pytest.mark.slow
def test_storage_is_unreadable_from_the_host(device):
    """A stray read of the placeholder address faults at once, and does not return garbage."""
    done = run_python(
        "import ctypes, torch\n"
        "from skytorch.client import Compute\n"
        "with Compute('stray', provider='local') as node:\n"
        "    x = torch.ones(3, device=node.device())\n"
        "    ctypes.string_at(x.data_ptr(), 4)\n"
    )
    assert done.returncode == -signal.SIGSEGV
