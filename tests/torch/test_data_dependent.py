"""Operators whose result's shape only the server knows: each is one question, and then a tensor like any other."""

from __future__ import annotations

import pytest
import torch

PROGRAMS = {
    "nonzero": lambda x: [x.gt(0).nonzero(), torch.nonzero(x > 9), torch.nonzero(x > 0, as_tuple=True)],
    "masked_select": lambda x: [x.masked_select(x > 0), x[x > 100]],
    "boolean_index": lambda x: [
        x[x > 0],
        x[x[:, 0] > 0],
        x[:, torch.tensor([True, False, True, False], device=x.device)],
    ],
    "boolean_assign": lambda x: _assigned(x),
    "unique": lambda x: [
        torch.unique(x.round()),
        torch.unique(x.round(), return_inverse=True, return_counts=True),
        torch.unique(x.round(), dim=0),
        torch.unique_consecutive(x.round().flatten().sort().values, return_counts=True),
    ],
    "where_one_argument": lambda x: list(torch.where(x > 0.5)),
    "argwhere": lambda x: torch.argwhere(x > 0),
    "bincount": lambda x: [
        torch.bincount(x.abs().long().flatten()),
        torch.bincount(x.abs().long().flatten(), minlength=9),
    ],
    "repeat_interleave": lambda x: x.repeat_interleave(torch.tensor([1, 0, 2], device=x.device), dim=0),
    "histc": lambda x: torch.histc(x, bins=5),
    "combinations": lambda x: torch.combinations(x[0], 2),
    "one_hot": lambda x: torch.nn.functional.one_hot(x.abs().long()),
    "equal": lambda x: [torch.equal(x, x + 0), torch.equal(x, x + 1), torch.allclose(x, x)],
    "masked_scatter": lambda x: x.masked_scatter(x > 0, torch.arange(12.0, device=x.device)),
    "nothing_found": lambda x: [(x > 1e9).nonzero(), x[x > 1e9], x[x > 1e9].sum()],
}


def _assigned(x: torch.Tensor) -> torch.Tensor:
    x = x.clone()
    x[x > 0] = -1
    x[x < -1] = torch.arange(float((x < -1).sum().item()), device=x.device)
    return x


@pytest.mark.parametrize("name", PROGRAMS)
def test_program(same_on_both, name):
    same_on_both(lambda device: PROGRAMS[name](torch.randn(3, 4, device=device) * 2), ignore=("strides",))


def test_a_solution_lies_as_lapack_leaves_it(same_on_both):
    """With gaps between its columns; an out= tensor that has to grow gets them too."""

    def program(device):
        a, b = torch.randn(5, 3, device=device), torch.randn(5, 2, device=device)
        solution = torch.linalg.lstsq(a, b).solution
        outs = [torch.empty(0, device=device) for _ in range(3)]
        outs.insert(2, torch.empty(0, dtype=torch.int64, device=device))
        torch.linalg.lstsq(a, b, out=outs)
        assert solution.stride() == outs[0].stride() == (1, 5)
        return [solution, solution + 1, outs[0]]

    same_on_both(program)


def test_results_go_on(same_on_both):
    """What came back is an ordinary tensor: it is indexed with, differentiated through, and freed."""

    def program(device):
        x = torch.randn(6, 5, device=device, requires_grad=True)
        rows = (x.sum(dim=1) > 0).nonzero().squeeze(1)
        chosen = x[rows]
        picked = x[x > 0.3]
        (chosen.square().sum() + picked.exp().sum()).backward()
        return [rows, chosen, x]

    same_on_both(program)


def test_control_flow_on_values(same_on_both):
    def program(device):
        x = torch.tensor(27, device=device)
        steps = 0
        while x != 1:
            x = x // 2 if x % 2 == 0 else 3 * x + 1
            steps += 1
        return [steps, x]

    same_on_both(program)


def test_out_of_another_size_and_strides(same_on_both):
    """An out= tensor that is resized gets the strides that the operator gives."""

    def program(device):
        a, b = torch.arange(24.0).reshape(2, 3, 4).to(device), torch.arange(24.0).reshape(2, 4, 3).to(device)
        out = torch.bmm(a, b, out=torch.empty(0, device=device))
        added = torch.baddbmm(out, a, b, out=torch.empty(0, device=device))
        rows = torch.tensor([0, 2], device=device)
        indexed = torch.index_add(b[0], 0, rows, b[0, :2], out=torch.empty(0, device=device))
        inverse = torch.cholesky_inverse(torch.eye(3, device=device) * 2, out=torch.empty(0, device=device))
        empty = torch.cholesky_inverse(torch.ones(0, 2, 2, device=device), out=torch.empty(0, device=device))
        return out, added, indexed, inverse, empty + 1

    def transform(device):
        a = torch.arange(24.0).reshape(2, 3, 4).to(device)
        return torch.fft.ifft(a, dim=1, out=torch.empty(0, dtype=torch.complex64, device=device))

    same_on_both(program, rtol=0, atol=0)
    same_on_both(transform)  # two runs of MKL's on one machine differed in the last digit, when it was busy


def test_segments(same_on_both):
    def program(device):
        data = torch.arange(12.0).reshape(6, 2).to(device).requires_grad_()
        by_length = torch.segment_reduce(data, "sum", lengths=torch.tensor([1, 2, 3], device=device))
        by_border = torch.segment_reduce(data, "max", offsets=torch.tensor([0, 4, 6], device=device))
        (by_length.sum() + by_border.sum()).backward()
        return by_length, by_border, data

    same_on_both(program)
