"""A server whose torch is of another minor version than this process's: what both know is right, the rest is refused.

`make test-matrix` names the other interpreter in SKYTORCH_OTHER_PYTHON; without it there is nothing to test.
"""

from __future__ import annotations

import os
import re
import subprocess

import pytest
import torch
from servers import serve

OTHER = os.environ.get("SKYTORCH_OTHER_PYTHON", "")
pytestmark = [
    pytest.mark.remote,
    pytest.mark.skipif(not OTHER, reason="needs an interpreter with another torch: run by make test-matrix"),
]


@pytest.fixture(scope="module")
def other_version():
    code = "import torch; print(torch.__version__)"
    done = subprocess.run([OTHER, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def device(tmp_path_factory):
    """The device of a server that runs the other torch."""
    from skytorch.client import Compute, init

    tmp_path = tmp_path_factory.mktemp("other")
    with serve(tmp_path, "--uds", str(tmp_path / "sky.sock"), python=OTHER) as server:
        init(provider="address", address=server.address, token=server.token)
        with Compute("other-torch", provider="address") as compute:
            yield compute.device()
    init()


# Operators of one matrix that came or went between the minor versions.
PASSING = ("cholesky", "linalg_polar", "linalg_matrix_sqrth")


def train(device: torch.device | str) -> list[float]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3),
        torch.nn.BatchNorm2d(4),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(144, 3),
    )
    x, y = torch.randn(8, 1, 8, 8).to(device), torch.arange(8).remainder(3).to(device)
    model = model.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_a_training_loop_gives_the_numbers_of_the_cpu(device):
    torch.testing.assert_close(torch.tensor(train(device)), torch.tensor(train("cpu")), rtol=1e-4, atol=1e-5)


def test_attention_and_an_lstm_give_the_numbers_of_the_cpu(device):
    torch.manual_seed(0)
    q = torch.randn(2, 2, 5, 8)
    lstm = torch.nn.LSTM(8, 6, num_layers=2, bidirectional=True)
    here = torch.nn.functional.scaled_dot_product_attention(q, q, q, is_causal=True), lstm(q[0])[0]
    far = q.to(device)
    there = (
        torch.nn.functional.scaled_dot_product_attention(far, far, far, is_causal=True),
        lstm.to(device)(far[0])[0],
    )
    for a, b in zip(here, there, strict=True):
        torch.testing.assert_close(b.cpu(), a)


def test_seeds_give_the_numbers_of_the_cpu(device):
    torch.manual_seed(7)
    here = torch.randn(100), torch.randperm(50)
    torch.manual_seed(7)
    there = torch.randn(100, device=device), torch.randperm(50, device=device)
    for a, b in zip(here, there, strict=True):
        torch.testing.assert_close(b.cpu(), a, rtol=0, atol=0)


def test_an_operator_that_the_server_lacks_is_refused_with_both_versions(device, other_version):
    import skytorch

    listing = "import torch; print(*torch._C._dispatch_get_all_op_names())"
    theirs = subprocess.run([OTHER, "-c", listing], capture_output=True, text=True, check=True).stdout.split()
    names = [name for name in PASSING if hasattr(torch.ops.aten, name) and f"aten::{name}" not in theirs]
    if not names:
        pytest.skip(f"torch {torch.__version__} has none of {PASSING} over {other_version}")
    x = torch.eye(3, device=device)
    both = f"torch is {torch.__version__} here and {other_version} on the server"
    for name in names:
        with pytest.raises(skytorch.NotSupported, match=f"aten::{name} is not in torch .*{re.escape(both)}"):
            print(getattr(torch.ops.aten, name)(x))
    assert (x + x).sum().item() == 6
