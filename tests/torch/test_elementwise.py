"""Arithmetic, comparisons, reductions and type promotion: the operators that every program is made of."""

from __future__ import annotations

import operator

import pytest
import torch

BINARY = ("add", "sub", "mul", "div", "pow", "atan2", "maximum", "fmod", "remainder", "eq", "lt", "logical_and")
UNARY = (
    "neg",
    "abs",
    "exp",
    "sqrt",
    "sin",
    "tanh",
    "sigmoid",
    "relu",
    "round",
    "floor",
    "sign",
    "isnan",
    "erf",
    "rsqrt",
)
REDUCTIONS = ("sum", "mean", "prod", "amax", "argmin", "std", "var", "any", "all", "logsumexp", "cumsum", "norm")
DTYPES = (
    torch.float64,
    torch.float32,
    torch.bfloat16,
    torch.float16,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
)


@pytest.mark.parametrize("name", BINARY)
def test_binary(same_on_both, name):
    def program(device):
        x, y = torch.rand(3, 4, device=device) + 0.5, torch.rand(4, device=device) + 0.5
        return getattr(torch, name)(x, y)

    same_on_both(program)


@pytest.mark.parametrize("name", UNARY)
def test_unary(same_on_both, name):
    same_on_both(lambda device: getattr(torch, name)(torch.randn(3, 5, device=device)))


@pytest.mark.parametrize("name", REDUCTIONS)
def test_reduction(same_on_both, name):
    def program(device):
        x = torch.randn(3, 4, 5, device=device)
        reduce = getattr(torch, name)
        whole = [] if name in ("cumsum", "logsumexp") else [reduce(x)]
        return [*whole, reduce(x, dim=1), reduce(x.transpose(0, 2), dim=0)]

    same_on_both(program)


@pytest.mark.parametrize("operation", [operator.add, operator.mul, operator.truediv, operator.floordiv, operator.gt])
def test_python_numbers(same_on_both, operation):
    """A Python number on either side promotes as it does locally."""

    def program(device):
        whole, real = torch.arange(1, 7, device=device), torch.arange(1.0, 7.0, device=device)
        return [operation(x, n) for x in (whole, real) for n in (2, 2.5, True)] + [operation(3, real)]

    same_on_both(program)


@pytest.mark.parametrize("left", DTYPES, ids=str)
def test_type_promotion(same_on_both, left):
    def program(device):
        return [
            torch.ones(2, 3, dtype=left, device=device) * torch.full((3,), 3, dtype=right, device=device)
            for right in DTYPES
        ]

    same_on_both(program)


def test_cpu_scalar_mixes_with_device_tensors(same_on_both):
    def program(device):
        x = torch.arange(4.0, device=device)
        return [
            x * torch.tensor(2.5),
            torch.tensor(3) + x,
            torch.maximum(x, torch.tensor(1.5)),
            x / torch.tensor(2).double(),
        ]

    same_on_both(program)


def test_in_place_and_out(same_on_both):
    def program(device):
        x, y = torch.arange(6.0, device=device), torch.ones(6, device=device)
        x.add_(y, alpha=2).mul_(x).clamp_(max=20).neg_()
        out = torch.empty(0, device=device)
        given = torch.empty(6, device=device)
        alias = torch.mul(x, y, out=given)
        torch.add(x, y, out=out)
        return [x, out, given, alias is given]

    same_on_both(program)


def test_in_place_through_a_view_changes_the_base(same_on_both):
    def program(device):
        x = torch.zeros(4, 4, device=device)
        x[1:3, ::2].add_(1)
        x.t()[0].fill_(7)
        x.diagonal().mul_(3)
        return x

    same_on_both(program)


def test_same_tensor_twice(same_on_both):
    def program(device):
        x = torch.arange(4.0, device=device)
        x.add_(x)
        return [x, x * x, torch.cat([x, x]), torch.stack([x, x, x], dim=1)]

    same_on_both(program)


def test_scalars_that_change_every_step(same_on_both):
    """Numbers are not part of an op's template: each call must carry its own."""

    def program(device):
        x = torch.zeros(3, device=device)
        for step in range(50):
            x = x.mul(0.5 + step / 100).add(step).clamp(-step, step + 1.5)
            x.add_(x, alpha=1 / (step + 1))
        return x

    same_on_both(program)


def test_structure_of_results(same_on_both):
    """Operators that return several tensors, named tuples, lists or nothing but views."""

    def program(device):
        x = torch.randn(4, 6, device=device)
        values, indices = x.max(dim=1)
        return [
            values,
            indices,
            x.topk(2),
            x.sort(dim=0),
            x.split([1, 5], dim=1),
            x.chunk(3, dim=1),
            torch.aminmax(x),
            torch.frexp(x),
            torch.var_mean(x, dim=1),
            torch.unbind(x),
            torch.meshgrid(x[0], x[1], indexing="ij"),
        ]

    same_on_both(program)


def test_complex(same_on_both):
    def program(device):
        x = torch.randn(3, 4, device=device, dtype=torch.complex64)
        return [x * x.conj(), x.real, x.imag, x.abs(), x.angle(), torch.view_as_real(x), (x @ x.mH), x.conj() + 1j]

    same_on_both(program)


def test_matrix_products(same_on_both):
    def program(device):
        a, b, v = torch.randn(3, 4, device=device), torch.randn(4, 5, device=device), torch.randn(4, device=device)
        batch = torch.randn(2, 3, 4, device=device)
        return [
            a @ b,
            a @ v,
            v @ v,
            batch @ b,
            torch.bmm(batch, batch.mT),
            torch.einsum("bij,jk->bki", batch, b),
            torch.addmm(a @ b, a, b, beta=0.5, alpha=2),
            torch.outer(v, v),
            torch.linalg.solve(b.T @ b + 9 * torch.eye(5, device=device), v.new_ones(5)),
        ]

    same_on_both(program)


@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (1,), (1, 1, 1)])
def test_edge_shapes(same_on_both, shape):
    def program(device):
        x = torch.ones(shape, device=device)
        return [
            x + 1,
            x.sum(),
            x.reshape(-1),
            x.clone(),
            x * x,
            x.unsqueeze(0),
            torch.cat([x.reshape(-1)] * 2),
            x.cpu(),
            x.numel(),
        ]

    same_on_both(program)


def test_long_chain_of_dependent_ops(same_on_both):
    def program(device):
        x = torch.linspace(-1, 1, 16, device=device).reshape(4, 4)
        for _ in range(3000):
            x = (x @ x).tanh() + x
            x = x / x.abs().max()
        return x

    same_on_both(program, rtol=1e-4, atol=1e-5)
