"""The limits of `skytorch serve`: each has a flag and a default, and meeting it is said where it belongs, while the
server goes on. (The limits of the wire itself are vectors of the crate; those of the executor are in tests/cpp.)
"""

from __future__ import annotations

import select
import socket
import time

import pytest
from servers import run_python, serve
from skytorch import _wire, errors
from skytorch.server._flags import parse
from skytorch.server._limits import Limits

PROGRAM = """
import sys
import torch
from skytorch.client import Compute, init

def main(device):
{body}

init(provider="address", address=sys.argv[1], token=sys.argv[2])
with Compute("limits", provider="address") as compute:
    main(compute.device())
"""


def run(served, body: str):
    """A torch program on the served device, in a process of its own."""
    lines = "\n".join(f"    {line}" for line in body.strip().splitlines())
    program = PROGRAM.format(body=lines)
    code = f"import sys; sys.argv = ['-', {served.address!r}, {served.token!r}]\n{program}"
    return run_python(code)


def passes(served, body: str) -> str:
    done = run(served, body)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def with_flags(tmp_path):
    def start(*flags: str):
        return serve(tmp_path, "--uds", str(tmp_path / "s"), *flags)

    return start


def test_defaults_and_sizes(capsys):
    assert parse([], program="serve").limits == Limits()
    limits = parse(["--max-memory", "3G", "--max-queue", "64K", "--auth-timeout", "0.5"], program="serve").limits
    assert (limits.max_memory, limits.max_queue, limits.auth_timeout_s) == (3 << 30, 64 << 10, 0.5)
    for flags in (
        ["--max-memory", "much"],
        ["--max-storages", "0"],
        ["--max-templates", "1M"],
        ["--auth-timeout", "0"],
        ["--resume-timeout", "-1"],
    ):
        with pytest.raises(SystemExit) as ended:
            parse(flags, program="serve")
        assert ended.value.code == 2
        assert flags[0] in capsys.readouterr().err


def test_memory_over_the_limit_is_torchs_out_of_memory_and_the_session_goes_on(with_flags):
    with with_flags("--max-memory", "64M") as served:
        out = passes(served, """
kept = torch.ones(8 << 20, device=device)
try:
    torch.ones(16 << 20, device=device).sum().item()
except torch.OutOfMemoryError as error:
    print("--max-memory" in str(error))
del kept
print(torch.ones(12 << 20, device=device).sum().item())
""")  # fmt: skip
        assert out.split() == ["True", str(float(12 << 20))]
        done = run(served, "torch.zeros(32 << 20).to(device).sum().item()")
        assert "OutOfMemoryError" in done.stderr, done.stderr
        assert passes(served, "print(torch.ones(4, device=device).sum().item())").strip() == "4.0"


def test_storages_over_the_limit_end_the_session_only(with_flags):
    with with_flags("--max-storages", "50") as served:
        done = run(served, """
kept = [torch.ones(1, device=device) for _ in range(60)]
print(kept[0].item())
""")  # fmt: skip
        assert done.returncode != 0
        assert "LimitExceeded" in done.stderr, done.stderr
        assert "--max-storages" in done.stderr, done.stderr
        # Forty at a time, a thousand in all.
        assert passes(served, """
for _ in range(25):
    kept = [torch.ones(1, device=device) for _ in range(40)]
    total = sum(x.item() for x in kept)
    del kept
print(total)
""").strip() == "40.0"  # fmt: skip


def test_templates_are_reused_when_there_are_no_more(with_flags):
    with with_flags("--max-templates", "16") as served:
        out = passes(served, "print(sum((torch.ones(n, device=device) + n).sum().item() for n in range(1, 60)))")
        assert float(out) == sum(n * (1 + n) for n in range(1, 60))


def test_connections_over_the_limit_are_refused(with_flags):
    with with_flags("--max-connections", "2") as served:
        held = [_wire.metrics(served.address, token=served.token) for _ in range(2)]
        with pytest.raises(errors.LimitExceeded, match="--max-connections"):
            _wire.metrics(served.address, token=served.token)
        held.pop().close()
        deadline = time.monotonic() + 10
        while (done := run(served, "print(torch.ones(4, device=device).sum().item())")).returncode != 0:
            assert time.monotonic() < deadline, done.stderr


def test_connections_without_a_token_over_the_limit_are_closed(with_flags):
    with with_flags("--max-pending", "2", "--auth-timeout", "30") as served:
        crowd = [connect(served) for _ in range(5)]
        # Two may stay until their time to authenticate is over; the others are closed at once.
        closed = set()
        deadline = time.monotonic() + 10
        while len(closed) < 3:
            readable, _, _ = select.select([c for c in crowd if c not in closed], [], [], deadline - time.monotonic())
            assert readable, f"{len(closed)} of 5 connections were closed"
            closed |= {c for c in readable if c.recv(4096) == b""}
        assert closed == set(crowd[:3]), "the oldest go"
        passes(served, "print(torch.ones(4, device=device).sum().item())")
        for connection in crowd:
            connection.close()


def test_a_connection_without_a_token_is_closed_in_time(with_flags):
    with with_flags("--auth-timeout", "0.3") as served:
        start = time.monotonic()
        silent = connect(served)
        silent.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        while silent.recv(4096):
            pass
        assert 0.2 < time.monotonic() - start < 5


def test_a_short_queue_slows_the_client_and_loses_nothing(with_flags):
    with with_flags("--max-queue", "64K") as served:
        out = passes(served, """
x = torch.zeros(100, device=device)
for _ in range(20000):
    x = x + 1
for n in range(50):
    x = x + torch.ones(100).to(device)
big = torch.arange(1 << 20, dtype=torch.float32).to(device)
print(x[0].item(), big[-1].item())
""")  # fmt: skip
        assert out.split() == ["20050.0", str(float((1 << 20) - 1))]


def connect(served) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(10)
    connection.connect(served.address.removeprefix("unix://"))
    return connection
