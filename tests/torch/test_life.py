"""Ordinary life of a session: workers that fork, programs that just end, collectors that run anywhere, peers that are
slower or faster than the other. test_lifetime.py has the life of tensors and processes, test_interrupt.py Ctrl-C.

The subtle thing: a garbage collection may free tensors at any allocation, also while an operator is being appended;
`gc.set_threshold(1)` makes that happen all the time.
"""

from __future__ import annotations

import gc
import subprocess
import sys
import threading

import psutil
import pytest
import torch
from servers import ROOT, environment, local_compute, run_python, suspend
from torch.utils.data import DataLoader, TensorDataset

pytestmark = pytest.mark.remote
MIB = 1 << 20


@pytest.fixture
def often_collected():
    thresholds = gc.get_threshold()
    gc.set_threshold(1)
    yield
    gc.set_threshold(*thresholds)


class Cycle:
    """Holds a tensor and itself, so that only the collector frees it."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor, self.me = tensor, self


def rss(process: psutil.Process) -> float:
    return process.memory_info().rss / MIB


def test_loader_workers_fork_while_tensors_live_in_the_parent(device):
    """Workers inherit tensors of the parent, free them at their end, and the parent's session knows nothing of it."""
    alive = [torch.full((8,), float(i), device=device) for i in range(50)]
    data = TensorDataset(torch.arange(64.0).view(32, 2))
    for _ in range(2):
        total = torch.zeros(2, device=device)
        for (batch,) in DataLoader(data, batch_size=4, num_workers=2, multiprocessing_context="fork"):
            total += batch.to(device).sum(0)
        assert total.tolist() == [992.0, 1024.0]
    assert [x[3].item() for x in alive] == list(range(50))


def test_threads_issue_free_and_wait_at_once(device, often_collected):
    wrong: list[str] = []
    shared: list[torch.Tensor] = [torch.zeros(4, device=device) for _ in range(16)]

    def work(number: int) -> None:
        for step in range(100):
            value = float(number * 1000 + step)
            mine = torch.full((4,), value, device=device)
            Cycle(mine + 1)
            shared[(number + step) % 16] = mine  # frees whatever stood there, perhaps another thread's last reference
            if step % 10 == 0 and (got := (mine + 1).sum().item()) != 4 * (value + 1):
                wrong.append(f"thread {number}, step {step}: {got}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert all(len(set(x.tolist())) == 1 for x in shared)


def test_a_collection_inside_an_append(device, often_collected):
    """Each call allocates Python objects, so each may free the tensors of earlier cycles on its way."""
    x = torch.zeros(4, device=device)
    for step in range(300):
        Cycle(x + step)
        x = torch.cat([x[:2] + 1, x[2:] + 1])
    assert x.tolist() == [300.0] * 4


def test_a_deleter_that_issues_operators(device):
    """`__del__` of a user runs where the last reference goes, and may itself use the device."""
    seen = torch.zeros(1, device=device)

    class Counts:
        def __init__(self) -> None:
            self.tensor = torch.ones(1, device=device)
            self.me = self

        def __del__(self) -> None:
            seen.add_(self.tensor)

    for _ in range(100):
        Counts()
        (seen * 2).sum()
    gc.collect()
    assert seen.item() == 100


@pytest.mark.parametrize(
    "work", ["ops", *(pytest.param(work, marks=pytest.mark.slow) for work in ("upload", "download"))]
)
def test_exit_with_work_in_flight(work):
    """The program ends at once and cleanly, and so does its server."""
    program = {
        "ops": "for _ in range(20000): x = x + 1",
        "upload": "y = torch.ones(32 << 20).pin_memory().to('sky', non_blocking=True)",
        "download": "threading.Thread(target=lambda: x.expand(4096, 4096).cpu(), daemon=True).start()",
    }[work]
    done = run_python(
        "import threading, torch, skytorch, psutil\n"
        "x = torch.ones(1, device='sky')\n"
        f"{program}\n"
        "print([p.pid for p in psutil.Process().children(recursive=True)], flush=True)\n",
        SKYTORCH_PROVIDER="local",
    )
    assert done.returncode == 0, done.stderr
    servers = [
        psutil.Process(int(pid)) for pid in done.stdout.strip().strip("[]").split(",") if psutil.pid_exists(int(pid))
    ]
    _, alive = psutil.wait_procs(servers, timeout=5)
    assert not alive, done.stderr


def test_a_client_that_never_reads_is_held_back():
    """A stopped server takes nothing: the client waits for room in the replay log, and its memory stays bounded."""
    with local_compute("never-reads") as (node, server):
        device = node.device()
        x = torch.zeros(1024, device=device)
        payload = torch.ones(1024)
        x.sum().item()
        before = rss(psutil.Process())
        suspend(server)
        progress = [0]

        def issue() -> None:
            for _ in range(60_000):  # 240 MiB of copied uploads, four times the replay log
                x.copy_(payload)
                progress[0] += 1

        worker = threading.Thread(target=issue)
        worker.start()
        seen = -1
        while seen != progress[0]:  # until a whole second brings no progress
            seen = progress[0]
            worker.join(1.0)
        held, grown = progress[0], rss(psutil.Process()) - before
        server.resume()
        worker.join(60)
        assert not worker.is_alive()
        assert x.sum().item() == 1024
    assert 0 < held < 60_000
    assert grown < 128, f"grew by {grown:.0f} MiB while the server took nothing"


@pytest.mark.slow
def test_a_server_much_slower_than_its_client():
    """Cheap to issue, dear to run: the server's queue and both memories stay bounded, and the result is right."""
    with local_compute("slower") as (node, server):
        device = node.device()
        a = torch.eye(512, device=device)
        a.sum().item()
        before = rss(psutil.Process()), rss(server)
        for _ in range(600):
            a = a @ a
        grown = rss(psutil.Process()) - before[0]
        assert a.trace().item() == 512
        assert max(grown, rss(server) - before[1]) < 96


def test_resize_of_a_shared_storage(same_on_both):
    def program(device):
        base = torch.arange(6.0, device=device)
        view = base[2:4]
        base.untyped_storage().resize_(4 * 20)
        base.set_(base.untyped_storage(), 0, (20,), (1,))
        base[6:] = 7
        view.add_(10)
        return base, view, view.untyped_storage().nbytes()

    same_on_both(program)


@pytest.mark.slow
def test_a_pause_of_both_sides_is_not_a_failure():
    """As when a laptop sleeps: both processes stand still for longer than a keepalive, then go on."""
    code = (
        "import torch, skytorch\n"
        "x = torch.zeros(4, device='sky')\n"
        "x.sum().item()\n"
        "print('ready', flush=True)\n"
        "for _ in range(30000): x = x + 1\n"
        "print(x.tolist(), flush=True)\n"
    )
    command, env = [sys.executable, "-c", code], environment(SKYTORCH_PROVIDER="local")
    program = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert program.stdout.readline() == "ready\n"
    both = [psutil.Process(program.pid), *psutil.Process(program.pid).children(recursive=True)]
    for process in both:
        process.suspend()
    with pytest.raises(psutil.TimeoutExpired):
        both[0].wait(8)  # the pause itself: longer than the 5 s after which a silent link is asked
    for process in both:
        process.resume()
    assert program.communicate(timeout=60)[0].strip() == "[30000.0, 30000.0, 30000.0, 30000.0]"
    assert program.returncode == 0


@pytest.mark.slow
def test_a_hundred_thousand_live_tensors(device):
    tensors = [torch.full((2,), float(i), device=device) for i in range(100_000)]
    assert sum(t[0].item() for t in tensors[::10_000]) == sum(range(0, 100_000, 10_000))
    sums = [torch.stack(tensors[i : i + 10_000]).double().sum().item() for i in range(0, 100_000, 10_000)]
    assert sum(sums) == 2 * sum(range(100_000))


@pytest.mark.slow
def test_a_million_small_uploads():
    """Each is its own copy from the host; neither side keeps any of them."""
    with local_compute("uploads") as (node, server):
        device = node.device()
        total = torch.zeros(2, device=device)
        one = torch.ones(2)

        def upload(count: int) -> None:
            for _ in range(count):
                total.add_(one.to(device))
            total.sum().item()

        upload(100_000)
        before = rss(psutil.Process()), rss(server)
        upload(900_000)
        grown = rss(psutil.Process()) - before[0], rss(server) - before[1]
        assert total.tolist() == [1e6, 1e6]
    assert max(grown) < 8, f"client grew by {grown[0]:.1f} MiB, server by {grown[1]:.1f} MiB"
