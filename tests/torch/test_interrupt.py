"""Ctrl-C during a wait raises KeyboardInterrupt at once, discards the late answer and leaves the session usable.

A wait that would last is one for a stopped server (SIGSTOP). A Compute is left at once when Ctrl-C is on its way.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
import time
from collections.abc import Callable

import psutil
import pytest
import torch
from servers import ROOT, local_compute, run_python, serve, suspend

pytestmark = pytest.mark.remote


def busy(device: torch.device) -> torch.Tensor:
    """About a second of work for the server, issued in a moment."""
    x = torch.rand(1024, 1024, device=device)
    for _ in range(20):
        x = (x @ x).tanh()
    return x


WAITS: dict[str, Callable[[torch.Tensor], object]] = {
    "item": lambda x: x.sum().item(),
    "cpu": lambda x: x.cpu(),
    "synchronize": lambda x: torch.sky.synchronize(x.device),
    "nonzero": lambda x: x.nonzero(),
}


def interrupted(wait: Callable[[], object], after_s: float = 0.5) -> float:
    """Ctrl-C `after_s` into `wait`; seconds from then until it is raised."""
    sent_at: list[float] = []

    def interrupt() -> None:
        sent_at.append(time.monotonic())
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    timer = threading.Timer(after_s, interrupt)
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        wait()
    timer.join()
    return time.monotonic() - sent_at[0]


@pytest.mark.parametrize("wait", WAITS)
def test_ctrl_c_during_a_wait(device, wait):
    marker = torch.arange(5.0, device=device)
    torch.sky.synchronize(device)
    x = busy(device)
    assert interrupted(lambda: WAITS[wait](x), after_s=0.2) < 1.5
    assert marker.tolist() == [0, 1, 2, 3, 4]  # the late answer is not taken for this one
    assert (marker + 1).sum().item() == 15


@pytest.mark.parametrize("wait", WAITS)
@pytest.mark.parametrize("error", [SystemExit(143), ZeroDivisionError("mine")], ids=repr)
def test_what_a_signal_handler_raises_during_a_wait_is_raised(device, wait, error):
    torch.sky.synchronize(device)
    x = busy(device)

    def handler(number, frame):
        raise error

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(type(error)) as raised:
            WAITS[wait](x)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert raised.value is error
    assert torch.ones(3, device=device).sum().item() == 3


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
@pytest.mark.parametrize("wait", ["back-pressure", "data-dependent", "upload"])
def test_ctrl_c_where_a_server_stands_still(wait):
    """Let go on, the server has lost nothing. Leaving it raises nothing: the program knows what it interrupted."""
    with local_compute("still") as (node, server):
        device = node.device()
        x = torch.arange(4.0, device=device)
        small, there = torch.ones(1024), torch.zeros(1024, device=device)
        large = torch.ones(16 << 20)
        torch.sky.synchronize(device)

        def press() -> None:
            while True:
                there.copy_(small)

        waits = {
            "back-pressure": press,
            "data-dependent": lambda: x.nonzero(),
            "upload": lambda: large.to(device),
        }
        suspend(server)
        try:
            assert interrupted(waits[wait]) < 1.5
        finally:
            server.resume()
        assert (x + 1).tolist() == [1, 2, 3, 4]


@pytest.mark.slow
def test_ctrl_c_during_an_upload_loses_the_value_of_its_tensor_only():
    with local_compute("upload") as (node, server):
        large = torch.ones(16 << 20)
        into = torch.zeros(16 << 20, device=node.device())
        torch.sky.synchronize(node.device())
        suspend(server)
        try:
            assert interrupted(lambda: into.copy_(large)) < 1.5
        finally:
            server.resume()
        with pytest.raises(RuntimeError, match="interrupted"):
            into.sum().item()
        assert large.to(node.device()).sum().item() == 16 << 20


@pytest.mark.slow
def test_ctrl_c_during_the_first_copy_between_two_computes():
    """It waits for the server of the source to say whether it reaches the other one."""
    with local_compute("source") as (source, server), local_compute("target") as (target, _):
        x = torch.arange(4.0, device=source.device())
        torch.sky.synchronize(source.device())
        suspend(server)
        try:
            assert interrupted(lambda: x.to(target.device())) < 1.5
        finally:
            server.resume()
        assert x.to(target.device()).tolist() == [0, 1, 2, 3]


def stop_with_work(device: torch.device, server: psutil.Process) -> None:
    """Stop a server and give it something to do."""
    x = torch.ones(4, device=device)
    torch.sky.synchronize(device)
    suspend(server)
    x.add_(1)


@pytest.mark.slow
def test_ctrl_c_while_a_compute_is_left():
    """Ctrl-C ends the wait for what was issued; the server is taken away all the same."""
    leaving = contextlib.ExitStack()
    node, server = leaving.enter_context(local_compute("left"))
    stop_with_work(node.device(), server)
    assert interrupted(leaving.close) < 10
    assert not server.is_running()


@pytest.mark.slow
def test_ctrl_c_while_a_compute_is_left_in_an_event_loop():
    from skytorch.client import Compute

    with asyncio.Runner() as runner:
        node = runner.run(Compute("left-in-a-loop", provider="local").__aenter__())
        server = psutil.Process(node.server_info["pid"])
        stop_with_work(node.device(), server)
        assert interrupted(lambda: runner.run(node.__aexit__(None, None, None))) < 10
    assert not server.is_running()


@pytest.mark.slow
@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_leaving_with_an_exception_on_its_way_does_not_wait(error):
    leaving = contextlib.ExitStack()
    node, server = leaving.enter_context(local_compute("left"))
    stop_with_work(node.device(), server)
    started = time.monotonic()
    with pytest.raises(error), leaving:
        raise error
    assert time.monotonic() - started < 10
    assert not server.is_running()


@pytest.mark.slow
def test_a_server_that_stays_is_free_after_ctrl_c(tmp_path, request):
    """It was told goodbye: it does not keep the session for a client that might come back."""
    import skytorch
    from skytorch.client import Compute, init

    with serve(tmp_path, "--uds", str(tmp_path / "s"), "--resume-timeout", "600") as served:
        request.addfinalizer(init)
        init(provider="address", address=served.address, token=served.token)
        leaving, server = contextlib.ExitStack(), psutil.Process(served.process.pid)
        stop_with_work(leaving.enter_context(Compute("stays", provider="address")).device(), server)
        with pytest.raises(KeyboardInterrupt), leaving:
            raise KeyboardInterrupt
        server.resume()
        deadline = time.monotonic() + 30
        while True:
            try:
                with Compute("next", provider="address") as node:
                    assert torch.ones(4, device=node.device()).sum().item() == 4
                return
            except skytorch.ServerBusy:
                assert time.monotonic() < deadline


@pytest.mark.slow
def test_ctrl_c_ends_a_program_without_waiting_for_its_server():
    """The Compute of `device="sky"`, which the interpreter's exit leaves."""
    done = run_python(
        "import os, psutil, signal, torch, skytorch\n"
        "from servers import suspend\n"
        "x = torch.ones(4, device='sky')\n"
        "x.sum().item()\n"
        "(server,) = psutil.Process().children()\n"
        "suspend(server)\n"
        "print(server.pid, flush=True)\n"
        "x.add_(1)\n"
        "os.kill(os.getpid(), signal.SIGINT)\n",
        SKYTORCH_PROVIDER="local",
        PYTHONPATH=f"{ROOT}/python:{ROOT}/tests",
    )
    assert done.returncode == -signal.SIGINT, done.stderr
    assert "KeyboardInterrupt" in done.stderr
    assert not psutil.pid_exists(int(done.stdout))
