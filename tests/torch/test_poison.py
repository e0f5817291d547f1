"""What a failure on the server says and where it came from: the Python line that issued the operator, checks for NaN,
operators that the server imported. test_failures.py has what a failure does to the data."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
import torch
from servers import ROOT, run_python, serve
from torch.nn import functional as F

pytestmark = pytest.mark.remote

ORIGIN = """
import torch, skytorch
device = torch.device("sky")
table = torch.ones(3, 2, device=device, requires_grad=True)

def look_up(index):
    return torch.nn.functional.embedding(index, table)  # the line

def what_of(read):
    try:
        read()
    except Exception as error:
        print(type(error).__name__, str(error).splitlines()[0])

bad = look_up(torch.tensor([9], device=device))
later = bad * 2
what_of(later.cpu)
what_of(lambda: torch.arange(3.0, device=device)[torch.tensor([5], device=device)].cpu())
"""


def line_of(text: str, program: str) -> int:
    return next(number for number, line in enumerate(program.splitlines(), 1) if text in line)


def test_the_python_line_is_named_when_asked_for():
    done = run_python(ORIGIN, SKYTORCH_TRACE_ORIGIN="1")
    first, second = done.stdout.splitlines()
    line = line_of("# the line", ORIGIN)
    assert re.match(rf"IndexError .*embedding.*; issued at <string>:{line} in look_up", first)
    assert f"issued at <string>:{line_of('what_of(lambda', ORIGIN)} in <lambda>" in second


def test_without_being_asked_no_line_is_named():
    done = run_python(ORIGIN)
    assert len(done.stdout.splitlines()) == 2, done.stderr
    assert "issued at" not in done.stdout


def test_anomaly_mode_names_the_line_and_then_it_ends(device):
    index = torch.tensor([9], device=device)
    weight = torch.ones(3, 2, device=device)
    with torch.autograd.set_detect_anomaly(True, check_nan=False):
        line = inspect.currentframe().f_lineno + 1
        bad = F.embedding(index, weight)
    with pytest.raises(IndexError, match=f"issued at {re.escape(__file__)}:{line} in test_anomaly_mode"):
        bad.cpu()
    bad = F.embedding(index, weight)
    with pytest.raises(IndexError) as caught:
        bad.cpu()
    assert "issued at" not in str(caught.value)


class FailsInBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return grad[torch.tensor([50], device=grad.device)].expand(grad.shape)


def test_the_backward_pass_is_named(device):
    x = torch.ones(3, device=device, requires_grad=True)
    with torch.autograd.set_detect_anomaly(True, check_nan=False):
        FailsInBackward.apply(x).sum().backward()
    with pytest.raises(IndexError, match=r"issued at .*test_poison.py:\d+ in backward"):
        x.grad.cpu()


def test_anomaly_mode_finds_a_nan_in_the_backward_pass(device):
    """As on the CPU: it reads a value back in every node, so it raises inside `backward`."""
    x = torch.zeros(2, device=device, requires_grad=True)
    with torch.autograd.set_detect_anomaly(True), pytest.raises(RuntimeError, match=r"SqrtBackward0.*nan"):
        (x.sqrt() * 0).sum().backward()


def test_a_nan_check_on_the_server_is_raised_by_the_first_wait(device):
    x = torch.tensor([1.0, float("nan")], device=device)
    torch._assert_async(~x.isnan().any(), "there is a nan in x")
    after = x + 1
    with pytest.raises(RuntimeError, match="there is a nan in x"):
        torch.sky.synchronize(device)
    assert after[0].item() == 2
    torch._assert_async(~after[:1].isnan().any(), "there is none")
    torch.sky.synchronize(device)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A device whose server imported `served_operators`."""
    import served_operators  # noqa: F401 - the schemas, on this side
    from skytorch.client import Compute, init

    folder = tmp_path_factory.mktemp("served")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT / "tests" / "torch"))
        with serve(folder, "--uds", str(folder / "socket"), "--import", "served_operators") as server:
            init(provider="address", address=server.address, token=server.token)
            with Compute("imports", provider="address") as compute:
                init()  # is process-wide: the default is back
                yield compute.device()


def test_an_imported_operator_runs_on_the_server(served):
    x = torch.arange(4.0)
    assert torch.equal(torch.ops.skytorch_served.doubled(x.to(served)).cpu(), x * 2)


@pytest.mark.slow
def test_an_imported_operator_that_raises_poisons_its_output(served):
    x = torch.ones(2, 3, device=served)
    bad = torch.ops.skytorch_served.refused(x)
    beside = torch.ops.skytorch_served.doubled(x)
    with pytest.raises(RuntimeError, match=r"(?s)KeyError.*the user's own words.*skytorch_served::refused.*\[2, 3\]"):
        (bad + 1).cpu()
    assert beside.sum().item() == 12


def test_an_import_that_raises_ends_the_server_naming_it(tmp_path: Path):
    (tmp_path / "broken_operators.py").write_text("raise ValueError('not today')\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path))
        refusal = pytest.raises(AssertionError, match=r"--import broken_operators: ValueError: not today")
        with refusal, serve(tmp_path, "--uds", str(tmp_path / "socket"), "--import", "broken_operators"):
            pass
