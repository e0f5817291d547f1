"""What a person sees: printing a tensor looks as it does locally, with the device's name."""

from __future__ import annotations

import re

import pytest
import torch

TENSORS = {
    "floats": lambda d: torch.arange(6.0, device=d).reshape(2, 3) / 7,
    "integers": lambda d: torch.arange(6, device=d),
    "bools": lambda d: torch.arange(4, device=d) > 1,
    "scalar": lambda d: torch.tensor(2.5, device=d),
    "empty": lambda d: torch.empty(0, 3, device=d),
    "large": lambda d: torch.arange(5000.0, device=d).reshape(50, 100),
    "scientific": lambda d: torch.tensor([1e-9, 1e9, float("nan"), float("inf")], device=d),
    "complex": lambda d: torch.tensor([1 + 2j, 3 - 4j], device=d),
    "half": lambda d: torch.ones(3, device=d, dtype=torch.bfloat16),
    "with_grad": lambda d: torch.ones(2, device=d, requires_grad=True),
    "with_grad_fn": lambda d: torch.ones(2, device=d, requires_grad=True) * 2,
    "parameter": lambda d: torch.nn.Parameter(torch.zeros(2, 2, device=d)),
    "transposed": lambda d: torch.arange(6.0, device=d).reshape(2, 3).T,
}


@pytest.mark.parametrize("name", TENSORS)
def test_repr(device, name):
    expected, got = repr(TENSORS[name](torch.device("cpu"))), repr(TENSORS[name](device))
    if device.type != "cpu":
        assert f"device='{device}'" in got
        got = re.sub(r",\s+device='[^']*'", "", got)
    assert "".join(got.split()) == "".join(expected.split())


def test_format_and_strings(same_on_both):
    def program(device):
        x = torch.tensor(3.14159, device=device)
        return [
            f"{x:.2f}",
            str(x.item()),
            str(torch.ones(2, device=device).tolist()),
            len(torch.ones(3, 2, device=device)),
        ]

    same_on_both(program)


def test_device_in_the_name(device):
    x = torch.ones(1, device=device)
    assert str(x.device) == str(device)
    if device.type != "cpu":
        assert x.device.type == "sky"
        assert x.type() == "torch.sky.FloatTensor"
        assert not x.is_cpu
        assert x.is_sky


@pytest.mark.remote
@pytest.mark.parametrize("shape", [(), (5,), (3000,), (7, 7), (1500, 1500), (2, 7, 300), (3, 2, 8, 40, 40)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.complex64, torch.bool], ids=str)
def test_a_print_reads_once(compute, shape, dtype):
    values = torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 100
    local = values.to(dtype)
    x = local.to(compute.device())
    before = compute.stats()["reads"]
    got = repr(x)
    assert compute.stats()["reads"] - before == 1
    assert "".join(re.sub(r",\s+device='[^']*'", "", got).split()) == "".join(repr(local).split())


@pytest.mark.remote
def test_print_options_are_kept(device):
    x = torch.arange(40, device=device).reshape(8, 5)
    with torch._tensor_str.printoptions(threshold=10, edgeitems=2):
        text = repr(x)
        assert torch._tensor_str.PRINT_OPTS.threshold == 10
    assert "..." in text
    assert "...".join(text.split("...")).count("...") == 5
    assert "..." not in repr(x)
