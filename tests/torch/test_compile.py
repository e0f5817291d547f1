"""torch.compile: backends that issue operators give the eager numbers; inductor, which makes kernels, is refused."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_the_eager_numbers(device, backend):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 5), nn.GELU(), nn.LayerNorm(5), nn.Linear(5, 2)).to(device)
    x, q = torch.randn(4, 3).to(device), torch.randn(1, 2, 4, 8).to(device)
    compiled = torch.compile(model, backend=backend)

    def gradients(forward):
        model.zero_grad()
        y = forward(x)
        y.pow(2).sum().backward()
        return [y, *(p.grad.clone() for p in model.parameters())]

    def mutating(x):
        z = x.sin() + torch.arange(3, device=x.device)
        z[0] = 1
        return z.relu(), F.scaled_dot_product_attention(q, q, q)

    for got, expected in zip(gradients(compiled), gradients(model), strict=True):
        assert got.device == device
        torch.testing.assert_close(got, expected, rtol=0, atol=0)
    compiled(torch.ones(6, 3, device=device))
    for got, expected in zip(torch.compile(mutating, backend=backend)(x), mutating(x), strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=0)
    ones = torch.ones(100, device=device)
    torch.manual_seed(5)
    drawn = torch.compile(F.dropout, backend=backend)(ones)
    torch.manual_seed(5)
    assert torch.equal(drawn, F.dropout(ones))


@pytest.mark.remote
def test_inductor_says_what_to_take_instead(device):
    model = nn.Sequential(nn.Linear(3, 5), nn.GELU()).to(device)
    with pytest.raises(Exception, match=r"use torch.compile\(..., backend='aot_eager'\)"):
        torch.compile(model)(torch.ones(4, 3, device=device))
