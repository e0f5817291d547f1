"""Computes on the provider `local` with real servers: readiness, events, metrics, and every way to end."""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import skytorch
import torch
from servers import environment, local_compute, run_python
from skytorch import _wire, errors
from skytorch.client import Cluster, Compute, MetricsSnapshot, compute, init


def also(parameter):
    """One of several of which `make check` takes the first."""
    return pytest.param(parameter, marks=pytest.mark.slow)


PROGRAM_THAT_WAITS = """
import sys, torch, skytorch
from skytorch.client import Compute
node = Compute("waits-%s" % __import__("os").getpid(), provider="local").__enter__()
x = torch.ones(4, device=node.device())
print(node.server_info["pid"], x.sum().item(), flush=True)
sys.stdin.read()
"""


def ended(pid: int, within_s: float = 10) -> bool:
    """Whether the process ends in time."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], within_s)[0])
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("number", [signal.SIGKILL, also(signal.SIGTERM), also(signal.SIGHUP)])
def test_the_server_ends_with_its_parent(number):
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM_THAT_WAITS],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment(), text=True,
    )  # fmt: skip
    pid, total = program.stdout.readline().split()
    assert float(total) == 4.0
    program.send_signal(number)
    program.communicate()
    assert ended(int(pid), 5)


@pytest.mark.slow
def test_the_server_ends_when_the_program_just_ends():
    done = run_python(
        "import torch, skytorch\n"
        "x = torch.ones(2, 2, device='sky')\n"
        "print(torch.sky.device_count(), (x @ x).sum().item())\n"
        "from skytorch.client._exit import open_computes\n"
        "print(open_computes._open[0].server_info['pid'])"
    )
    assert done.returncode == 0, done.stderr
    first, pid = done.stdout.splitlines()
    assert first == "1 8.0"
    assert ended(int(pid), 1)
    assert done.stderr == ""


@pytest.mark.slow
def test_a_default_device_that_cannot_be_opened_says_why(tmp_path):
    (tmp_path / f"skytorch-{os.getuid()}").mkdir()
    (tmp_path / f"skytorch-{os.getuid()}").chmod(0o755)
    code = (
        "import skytorch, torch\n"
        "for _ in range(2):\n"
        "    try:\n"
        "        torch.ones(2, device='sky')\n"
        "    except skytorch.Unreachable as error:\n"
        "        print(error)"
    )
    done = run_python(code, XDG_RUNTIME_DIR=str(tmp_path))
    assert len(done.stdout.splitlines()) == 2, done.stderr
    assert all("must be a folder of yours with mode 0700" in line for line in done.stdout.splitlines())


def test_measurements_come_although_their_first_connection_fails(monkeypatch):
    connect, refused = _wire.metrics, []

    def first_fails(*words, **keywords):
        if not refused:
            refused.append(errors.Unreachable("no way to the server just now"))
            raise refused[0]
        return connect(*words, **keywords)

    monkeypatch.setattr(_wire, "metrics", first_fails)
    snapshots = queue.Queue()
    with Compute("unlucky", provider="local", on_metrics=snapshots.put):
        assert snapshots.get(timeout=10).get("cpu.utilization") is not None
    assert refused


def test_async_life():
    events, snapshots = [], queue.Queue()

    async def main():
        node = Compute("life", provider="local", on_events=events.append, on_metrics=snapshots.put)
        async with node:
            assert node.is_ready()
            ready = {c.type: c.status for c in node.resource.status.conditions}
            assert ready["Ready"] == "True"
            assert node.devices()[0] == "cpu"
            with pytest.raises(skytorch.DeviceNotFound, match="cpu"):
                node.device("tpu")
            x = torch.arange(4.0, device=node.device("cpu"))
            assert x.sum().item() == 6
            assert node.stats()["ops"] >= 1
            async for snapshot in node.metrics(interval=0.1):
                assert isinstance(snapshot, MetricsSnapshot)
                assert snapshot.get("ops.executed") >= 1
                break
            lines = [line async for line in node.logs()]
            assert any("listening" in line for line in lines)
            first = node.server_info["pid"]
            await node.suspend()
            assert not node.is_ready()
            with pytest.raises(skytorch.SessionClosed):
                x.sum().item()
            await node.resume()
            assert node.server_info["pid"] != first
            assert torch.ones(3, device=node.device()).sum().item() == 3
            assert snapshots.get(timeout=10).get("cpu.utilization") is not None
        assert not node.is_ready()
        assert ended(first)

    asyncio.run(main())
    assert [event.reason for event in events] == ["Starting", "Started", "Stopped", "Starting", "Started", "Stopped"]


def test_the_event_loop_stays_free_while_a_server_starts():
    async def main():
        beats = 0

        async def beat():
            nonlocal beats
            while True:
                await asyncio.sleep(0.01)
                beats += 1

        beating = asyncio.ensure_future(beat())
        async with Compute("free-loop", provider="local"):
            beating.cancel()
        assert beats > 20

    asyncio.run(main())


def test_a_killed_server_is_noticed_and_can_be_started_again():
    events = queue.Queue()
    with Compute("killed", provider="local", on_events=events.put) as node:
        x = torch.ones(2, device=node.device())
        assert x.sum().item() == 2
        os.kill(node.server_info["pid"], signal.SIGKILL)
        while events.get(timeout=10).reason != "Exited":
            pass
        assert not node.is_ready()
        assert "SIGKILL" in node.resource.status.conditions[0].message
        with pytest.raises(skytorch.ConnectionLost):
            x.sum().item()
        torch.manual_seed(0)  # must not fail because of one dead device
        asyncio.run(node.ready())
        assert torch.ones(2, device=node.device()).sum().item() == 2


@pytest.mark.parametrize("kind", [ValueError, also(asyncio.CancelledError), also(KeyboardInterrupt)])
def test_leaving_by_an_exception_deletes_and_passes_it_on(kind):
    pids = []

    @compute("thrown", provider="local")
    async def main(node, message):
        pids.append(node.server_info["pid"])
        raise kind(message)

    with pytest.raises(kind):
        asyncio.run(main("boom"))
    assert ended(pids[0])


def test_a_cancelled_start_leaves_nothing():
    async def main():
        task = asyncio.ensure_future(Compute("cancelled", provider="local").__aenter__())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        async with Compute("cancelled", provider="local") as node:
            assert node.is_ready()

    asyncio.run(main())


def test_a_silent_server_does_not_hold_up_a_cancellation():
    async def main(address: str):
        init(provider="address", address=address, token="t")
        task = asyncio.ensure_future(Compute("silent").ready())
        await asyncio.sleep(0.2)
        task.cancel()
        started = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert time.monotonic() - started < 5

    with socket.create_server(("127.0.0.1", 0)) as listener:
        try:
            asyncio.run(main(f"tcp://127.0.0.1:{listener.getsockname()[1]}"))
        finally:
            init()


def test_plain_functions_get_a_compute_too():
    @compute("plain", provider="local")
    def main(node, a, *, b):
        return (torch.full((2,), a, device=node.device()) * b).tolist()

    assert main(3, b=2) == [6, 6]


def fail_on_the_server(device: torch.device) -> torch.Tensor:
    """An index that only the server can see to be wrong."""
    return torch.ones(4, device=device)[torch.tensor([9]).to(device)]


@pytest.mark.slow
def test_a_failure_that_nobody_read_is_raised_at_leaving():
    with pytest.raises(IndexError), Compute("unread", provider="local") as node:
        fail_on_the_server(node.device())


@pytest.mark.slow
def test_a_failure_that_was_read_is_not_raised_again():
    with Compute("read", provider="local") as node:
        y = fail_on_the_server(node.device())
        with pytest.raises(IndexError):
            y.cpu()


@pytest.mark.slow
def test_an_unread_failure_is_logged_when_another_exception_is_on_its_way(caplog):
    @compute("logged", provider="local")
    def main(node):
        fail_on_the_server(node.device())
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        main()
    assert any("nobody had read" in record.getMessage() for record in caplog.records)


def test_a_callback_that_raises_does_not_stop_the_program(caplog):
    def callback(event):
        raise ValueError("callback")

    with Compute("callbacks", provider="local", on_events=callback) as node:
        assert torch.ones(2, device=node.device()).sum().item() == 2
    assert [r.levelname for r in caplog.records].count("ERROR") == 1


def test_one_name_one_holder_and_adoption():
    with Compute("shared", provider="local") as first:
        pid = first.server_info["pid"]
        with pytest.raises(errors.InvalidArgument, match="held by this process"):
            Compute("shared", provider="local").__enter__()
        with Compute("shared", provider="local", adopt=True) as second:
            assert ended(pid)
            assert torch.ones(2, device=second.device()).sum().item() == 2


def test_a_cluster_cleans_up_and_names_those_that_failed():
    node = Compute("fine", provider="local")
    with (
        pytest.raises(ExceptionGroup, match="wrong-flag") as raised,
        Cluster(node, Compute("wrong-flag", provider="local", args=["--bogus"])),
    ):
        pass
    assert [type(error) for error in raised.value.exceptions] == [errors.ComputeFailed]
    assert not node.is_ready()


@pytest.mark.slow
def test_cluster_indices_follow_its_order():
    async def main():
        async with Cluster(Compute("one", provider="local"), Compute("two", provider="local")) as (one, two):
            assert one.device().index < two.device().index
            assert torch.sky.device_count() >= 2

    asyncio.run(main())


@pytest.mark.slow
def test_suspend_from_the_start():
    async def main():
        async with Compute("asleep", provider="local", suspend=True) as node:
            assert not node.is_ready()
            await node.resume()
            assert node.is_ready()

    asyncio.run(main())


def test_a_timeout_says_what_it_waited_for():
    with pytest.raises(skytorch.ComputeNotReady, match="not ready within"):
        Compute("late", provider="local", timeout=0.01).__enter__()


@pytest.mark.slow
def test_a_forked_child_is_refused_and_leaves_the_parent_alone():
    done = run_python(
        "import os, torch, skytorch\n"
        "x = torch.ones(2, device='sky'); x.sum().item()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    torch.manual_seed(0)\n"
        "    try:\n"
        "        torch.ones(2, device='sky').sum().item()\n"
        "    except skytorch.ForkedSession as error:\n"
        "        print('refused', flush=True)\n"
        "    os._exit(0)\n"
        "os.waitpid(child, 0)\n"
        "print(x.sum().item())"
    )
    assert done.stdout.splitlines() == ["refused", "2.0"], done.stderr


FORK = """
import asyncio, contextlib, os, sys
import torch, skytorch
from skytorch.client import Cluster, Compute

def compute(name):
    return Compute(f"{name}-{os.getpid()}", provider="local")

def refused(node):
    for use in (node.device, node.ready, node.suspend, node.logs):
        try:
            outcome = use()
            if asyncio.iscoroutine(outcome):
                asyncio.run(outcome)
        except skytorch.ForkedSession:
            continue
        print("not refused:", use)

def check(child, node):
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    print("parent", torch.ones(2, device=node.device()).sum().item(), flush=True)
"""
FORMS = {
    "with": """
with compute("forks") as node:
    child = os.fork()
    if child:
        check(child, node)
    else:
        refused(node)
print("left" if child else "child", flush=True)
""",
    "sys.exit": """
with contextlib.ExitStack() as stack:
    (node,) = stack.enter_context(Cluster(compute("forks")))
    child = os.fork()
    if not child:
        print("child", flush=True)
        sys.exit(0)
    check(child, node)
print("left")
""",
    "async with": """
async def main():
    async with compute("forks") as node, Cluster(compute("second")):
        child = os.fork()
        if child:
            check(child, node)
    print("left" if child else "child", flush=True)
    if not child:
        os._exit(0)  # the event loop is the parent's too
asyncio.run(main())
""",
    "delete": """
node = asyncio.run(compute("forks").ready())
child = os.fork()
if not child:
    asyncio.run(node.delete())
    with compute("another") as own:
        assert torch.ones(2, device=own.device()).sum().item() == 2
    print("child", flush=True)
    sys.exit(0)
check(child, node)
print("left")
""",
}


@pytest.mark.parametrize("form", ["with", *map(also, sorted(FORMS.keys() - {"with"}))])
def test_a_forked_child_leaves_a_block_without_touching_it(form):
    done = run_python(FORK + FORMS[form])
    assert done.stdout.splitlines() == ["child", "parent 2.0", "left"], done.stdout + done.stderr
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    assert "WARN" not in done.stderr.upper()


def test_the_log_says_which_provider_was_chosen_once(caplog, monkeypatch):
    from skytorch.providers import settings

    caplog.set_level(logging.INFO, logger="skytorch")
    monkeypatch.setattr(settings, "_logged", False)
    monkeypatch.setenv("SKYTORCH_PROVIDER", "local")
    for _ in range(2):
        with Compute("said"):
            pass
    assert [r.getMessage() for r in caplog.records if "provider" in r.getMessage()] == [
        "provider local: SKYTORCH_PROVIDER names it"
    ]


def test_the_command_line_sees_a_live_compute_of_another_process():
    def skytorch_command(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "skytorch.cli", *words],
            env=environment(SKYTORCH_PROVIDER="local"), capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    with Compute("seen", provider="local") as node:
        assert torch.ones(2, device=node.device()).sum().item() == 2
        assert "seen" in skytorch_command("ls")
        assert "seen cpu:" in skytorch_command("top", "seen", "--once")
        assert "listening on unix://" in skytorch_command("logs", "seen")
        assert "Started" in skytorch_command("events", "seen")
        pid = node.server_info["pid"]
        assert "deleted seen" in skytorch_command("delete", "seen")
        assert ended(pid)


def test_a_server_starts_without_pythons_torch():
    """Importing it is most of what a start would take."""
    with local_compute("no-torch") as (compute, server):
        assert torch.ones(3, device=compute.device()).sum().item() == 3
        loaded = {Path(mapped.path).name for mapped in server.memory_maps()}
    assert "libtorch_cpu.so" in loaded
    assert "libtorch_python.so" not in loaded
