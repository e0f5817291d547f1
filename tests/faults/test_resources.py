"""A server whose machine is full: no memory beyond a limit, no room for its log. What fits goes on, and is right.

The limits are set on the running process (prlimit), because Python and torch alone take more than would be left.
"""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from servers import ROOT, environment, local_compute

pytestmark = [pytest.mark.remote, pytest.mark.slow]
MIB = 1 << 20
LIMIT_MIB = 256  # above what the server has when the test begins


def unread_failure(device: torch.device) -> Exception | None:
    try:
        torch.sky.synchronize(device)
    except RuntimeError as error:
        return error
    return None


@pytest.fixture
def limited() -> Iterator[tuple[torch.device, psutil.Process, torch.Tensor]]:
    """A device whose server may take LIMIT_MIB more, and a tensor that was there before."""
    with local_compute("limited") as (node, server):
        kept = torch.arange(4.0, device=node.device())
        assert kept.sum().item() == 6
        most = server.memory_info().vms + LIMIT_MIB * MIB
        resource.prlimit(server.pid, resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))
        yield node.device(), server, kept
        while failure := unread_failure(node.device()):
            assert "allocate" in str(failure) or "no memory" in str(failure)
        assert kept.tolist() == [0, 1, 2, 3]
        assert server.is_running()


def test_an_operator_without_memory_poisons_its_output_alone(limited: Any) -> None:
    device, _, kept = limited
    large = torch.empty(1 << 30, dtype=torch.uint8, device=device) + 1
    later = kept + 1
    with pytest.raises(RuntimeError, match=r"(?s)allocate.*aten::add"):
        large.cpu()
    assert later.tolist() == [1, 2, 3, 4]


def test_an_upload_without_memory_fails_alone(limited: Any) -> None:
    device, _, kept = limited
    with pytest.raises(torch.OutOfMemoryError, match="no memory for an upload of 419430400 bytes"):
        torch.ones(100 * MIB).to(device).sum().item()
    assert (kept * 2).tolist() == [0, 2, 4, 6]


def test_memory_that_is_freed_can_be_used_again(limited: Any) -> None:
    device, _, _ = limited
    held = [torch.ones(MIB, device=device) for _ in range(2 * LIMIT_MIB // 4)]
    with pytest.raises(RuntimeError, match="allocate"):
        torch.sky.synchronize(device)
    held.clear()
    assert torch.ones(MIB, device=device).sum().item() == MIB


def test_a_full_disk_costs_the_log_and_nothing_else() -> None:
    with local_compute("full-disk") as (node, server):
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        x = torch.arange(3 * MIB, device=node.device())
        assert torch.equal((x + 1).cpu(), torch.arange(3 * MIB) + 1)
        with pytest.raises(IndexError):
            x[torch.tensor([4 * MIB], device=node.device())].cpu()
        assert server.is_running()


FULL = "resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))\n"


def run_program(code: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    code = "import resource, torch, skytorch\nfrom skytorch.client import Compute\n" + code
    environ = environment(XDG_RUNTIME_DIR=str(tmp_path))
    return subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=60, cwd=ROOT
    )


def test_a_program_on_a_full_disk_is_told(tmp_path: Path) -> None:
    """Nothing can be written from the start: an error that names the file, and nothing stays."""
    done = run_program(FULL + "Compute('full-disk', provider='local').__enter__()\n", tmp_path)
    assert done.returncode == 1
    told = rf"compute 'full-disk': {tmp_path}/skytorch-\d+/full-disk/token cannot be written: File too large"
    assert re.search(told, done.stderr.splitlines()[-1])
    assert not [path for folder in tmp_path.iterdir() for path in folder.iterdir()]


def test_a_disk_that_fills_costs_the_records_and_nothing_else(tmp_path: Path) -> None:
    """The client cannot write any more while its Compute runs: the work goes on, and its end is a clean one."""
    code = (
        "with Compute('full-disk', provider='local') as node:\n"
        f"    {FULL}"
        "    assert torch.arange(4.0, device=node.device()).sum().item() == 6\n"
    )
    done = run_program(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.search(r"full-disk/\S+ cannot be written: File too large", done.stderr)
    assert not [path for folder in tmp_path.iterdir() for path in folder.iterdir()]
