"""Nested tensors. With `layout=torch.jagged` they are a Python subclass over dense tensors, and work as on the cpu.
Of the strided ones of the old prototype there is what the attention of the jagged ones needs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional as F

pytestmark = [
    pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors"),
    pytest.mark.filterwarnings("ignore:.*nested tensors.*prototype"),
]


def jagged(device: torch.device, *, requires_grad: bool = False, features: int = 4) -> torch.Tensor:
    rows = [torch.randn(n, features).to(device) for n in (2, 3, 1)]
    return torch.nested.nested_tensor(rows, layout=torch.jagged, device=device, requires_grad=requires_grad)


def lists(device: torch.device) -> torch.Tensor:
    return torch.nested.nested_tensor([[1.0, 2.0, 3.0], [4.0, 5.0]], layout=torch.jagged, device=device)


def dense(nested: torch.Tensor) -> list[torch.Tensor]:
    return [part.detach() for part in nested.unbind()]


def heads(x: torch.Tensor) -> torch.Tensor:
    return x.unflatten(-1, (2, 2)).transpose(1, 2)


def attention(device):
    x = jagged(device, requires_grad=True)
    q, k, v = heads(x), heads(x * 2), heads(x + 1)
    out = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(-2)
    out.values().square().sum().backward()
    return [dense(out), dense(x.grad)]


def trains(device):
    model = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 2)).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = model(jagged(device)).values().square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return losses


PROGRAMS: dict[str, Callable[[torch.device], object]] = {
    "construct": lambda d: [dense(jagged(d)), jagged(d).offsets(), jagged(d).values()],
    "construct_lists": lambda d: dense(lists(d)),
    "from_offsets": lambda d: dense(
        torch.nested.nested_tensor_from_jagged(torch.arange(6.0).to(d), offsets=torch.tensor([0, 2, 6], device=d))
    ),
    "as_nested": lambda d: dense(
        torch.nested.as_nested_tensor([torch.ones(2, 3).to(d), torch.ones(1, 3).to(d)], layout=torch.jagged)
    ),
    "narrow": lambda d: dense(
        torch.nested.narrow(
            torch.arange(12.0).reshape(3, 4).to(d), 1, torch.tensor([0, 1, 0], device=d),
            torch.tensor([2, 3, 1], device=d), layout=torch.jagged,
        ).contiguous()
    ),
    "metadata": lambda d: [jagged(d).dim(), jagged(d).size(0), jagged(d).size(-1), jagged(d).is_nested],
    "unary": lambda d: [dense(torch.sin(jagged(d))), dense(jagged(d).relu()), dense(F.gelu(jagged(d)))],
    "binary": lambda d: (lambda x: [dense(x + x), dense(x * 2), dense(x + torch.ones(4, device=d))])(jagged(d)),
    "linear": lambda d: dense(F.linear(jagged(d), torch.ones(3, 4, device=d))),
    "matmul": lambda d: dense(jagged(d) @ torch.ones(4, 2, device=d)),
    "sum": lambda d: [jagged(d).sum(), jagged(d).sum(dim=1), dense(jagged(d).sum(-1)), jagged(d).mean(dim=1)],
    "softmax": lambda d: [dense(F.softmax(jagged(d), dim=-1)), dense(torch.softmax(jagged(d), dim=1))],
    "layer_norm": lambda d: dense(F.layer_norm(jagged(d), (4,))),
    "dropout": lambda d: (lambda x: (torch.manual_seed(5), dense(F.dropout(x, 0.5)))[1])(jagged(d)),
    "to_padded": lambda d: torch.nested.to_padded_tensor(jagged(d), 0.0),
    "clone_detach": lambda d: [dense(jagged(d).clone()), dense(jagged(d).detach())],
    "to_dtype": lambda d: dense(jagged(d).to(torch.float64)),
    "to_cpu_and_back": lambda d: [dense(jagged(d).cpu()), dense(jagged(torch.device("cpu")).to(d))],
    "ones_like": lambda d: [dense(torch.ones_like(jagged(d))), dense(torch.zeros_like(jagged(d)))],
    "transpose": lambda d: dense(heads(jagged(d)).transpose(1, 2)),
    "embedding": lambda d: dense(
        F.embedding(
            torch.nested.nested_tensor([torch.tensor([1, 2]), torch.tensor([0])], layout=torch.jagged, device=d),
            torch.arange(12.0).reshape(4, 3).to(d),
        )
    ),
    "attention": attention,
    "trains": trains,
}  # fmt: skip


@pytest.mark.parametrize("name", PROGRAMS)
def test_jagged(same_on_both, name):
    same_on_both(PROGRAMS[name])


def test_backward(same_on_both):
    def program(device):
        x = jagged(device, requires_grad=True)
        torch.nested.to_padded_tensor(x.sin() * 3, 0.0).square().sum().backward()
        return dense(x.grad)

    same_on_both(program)


def test_printing(device):
    shown = repr(lists(device))
    assert "NestedTensor" in shown


@pytest.mark.remote
def test_what_strided_nested_tensors_do_not_do_is_refused_by_name(device):
    with pytest.raises(NotImplementedError, match="native_layer_norm is not supported on nested tensors"):
        F.layer_norm(torch.nested.nested_tensor([torch.ones(2, 4), torch.ones(3, 4)], device=device), (4,))
