"""Dtypes beyond the usual ones: float8 and other types that mostly only store, complex32, and quantized tensors.
Where the cpu refuses, `sky` refuses; where it computes, the values are the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

FLOAT8 = [
    torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz, torch.float8_e8m0fnu,
]  # fmt: skip
STORAGE = [*FLOAT8, torch.complex32, torch.uint16, torch.uint32, torch.uint64]

Program = Callable[[torch.device, torch.dtype], torch.Tensor]


def some(device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    values = torch.tensor([[0.5, 1.0, 2.0, 4.0], [8.0, 1.0, 16.0, 2.0]])
    return values.to(dtype).to(device)


PROGRAMS: dict[str, Program] = {
    "cast_there": lambda d, t: torch.tensor([0.5, 1.0, 3.0, 448.0, 1e-3]).to(d).to(t),
    "cast_back": lambda d, t: some(d, t).to(torch.complex64 if t.is_complex else torch.float32),
    "cast_half": lambda d, t: some(d, t).to(torch.complex64 if t.is_complex else torch.bfloat16),
    "upload": some,
    "empty_fill": lambda d, t: torch.empty(3, dtype=t, device=d).fill_(1),
    "zeros_ones_full": lambda d, t: torch.stack(
        [torch.zeros(2, dtype=t, device=d), torch.ones(2, dtype=t, device=d), torch.full((2,), 2, dtype=t, device=d)]
    ),
    "clone": lambda d, t: some(d, t).clone(),
    "copy_": lambda d, t: torch.zeros(2, 4, dtype=t, device=d).copy_(some(d, t)),
    "copy_from_float": lambda d, t: torch.zeros(2, 4, dtype=t, device=d).copy_(torch.ones(2, 4).to(d)),
    "views": lambda d, t: some(d, t).view(4, 2).t()[:, 1:3],
    "contiguous": lambda d, t: some(d, t).t().contiguous(),
    "reshape_expand": lambda d, t: some(d, t)[:, :1].expand(2, 3).reshape(6),
    "view_as_bytes": lambda d, t: some(d, t).view(torch.uint8),
    "cat": lambda d, t: torch.cat([some(d, t), some(d, t)]),
    "cat_dim": lambda d, t: torch.cat([some(d, t), some(d, t)], 1),
    "stack": lambda d, t: torch.stack([some(d, t), some(d, t)]),
    "split": lambda d, t: some(d, t).split(1)[1],
    "index": lambda d, t: some(d, t)[torch.tensor([1, 0], device=d)],
    "index_select": lambda d, t: some(d, t).index_select(1, torch.tensor([3, 0], device=d)),
    "mask": lambda d, t: some(d, t)[torch.tensor([True, False], device=d)],
    "eq": lambda d, t: some(d, t) == some(d, t),
    "equal": lambda d, t: torch.tensor(torch.equal(some(d, t), some(d, t))),
    "gather": lambda d, t: some(d, t).gather(1, torch.tensor([[0, 1], [1, 0]], device=d)),
    "where": lambda d, t: torch.where(torch.ones(2, 4, dtype=torch.bool, device=d), some(d, t), some(d, t)),
    "item": lambda d, t: torch.tensor(complex(some(d, t)[0, 1].item())),
    "add": lambda d, t: some(d, t) + some(d, t),
    "mul_scalar": lambda d, t: some(d, t) * 2,
    "sum": lambda d, t: some(d, t).sum(),
    "max": lambda d, t: some(d, t).max(),
    "matmul": lambda d, t: some(d, t) @ some(d, t).t(),
    "flip": lambda d, t: some(d, t).flip(0),
    "roll": lambda d, t: some(d, t).roll(1, 0),
    "repeat": lambda d, t: some(d, t).repeat(2, 1),
    "pad": lambda d, t: torch.nn.functional.pad(some(d, t), (1, 1)),
}


def as_comparable(tensor: torch.Tensor) -> torch.Tensor:
    """The bits of a tensor of a dtype that `assert_close` cannot compare."""
    return tensor.cpu().contiguous().view(torch.uint8) if tensor.dtype in FLOAT8 else tensor.cpu()


def outcome(program: Callable[[], torch.Tensor]) -> tuple[torch.Tensor | None, BaseException | None]:
    try:
        result = program()
        result.cpu()
    except Exception as error:
        return None, error
    return result, None


@pytest.mark.parametrize("dtype", STORAGE, ids=lambda t: str(t).removeprefix("torch."))
@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
def test_storage_dtypes(device, dtype, name):
    expected, refused = outcome(lambda: PROGRAMS[name](torch.device("cpu"), dtype))
    got, error = outcome(lambda: PROGRAMS[name](device, dtype))
    if refused is not None:
        assert error is not None, f"the cpu refuses it: {refused}"
        return
    assert error is None, f"the cpu computes it: {type(error).__name__}: {error}"
    assert got.dtype == expected.dtype
    assert got.shape == expected.shape
    torch.testing.assert_close(as_comparable(got), as_comparable(expected), equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.uint4, torch.int4, torch.float4_e2m1fn_x2], ids=str)
def test_types_below_a_byte_are_carried(device, dtype):
    stored = torch.tensor([[1, 2], [3, 250]], dtype=torch.uint8)
    there = stored.to(device).view(dtype)
    assert there.dtype == dtype
    assert torch.equal(there.view(torch.uint8).cpu(), stored)
    assert there.cpu().dtype == dtype


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2], ids=str)
def test_scaled_mm(same_on_both, dtype):
    def program(device):
        a = torch.randn(16, 32).to(dtype).to(device)
        b = torch.randn(16, 32).to(dtype).to(device).t()
        one = torch.ones((), device=device)
        return torch._scaled_mm(a, b, scale_a=one, scale_b=one, out_dtype=torch.float32)

    try:
        program(torch.device("cpu"))
    except (RuntimeError, NotImplementedError) as error:
        pytest.skip(f"the cpu has no such product: {error}")
    same_on_both(program)


@pytest.mark.remote
def test_quantized_tensors_are_refused_by_name(device):
    for _ in range(2):  # and once more, when the call has been seen before
        with pytest.raises(NotImplementedError, match=r"quantize_per_tensor is not supported on quantized tensors"):
            torch.quantize_per_tensor(torch.ones(3, device=device), 0.1, 0, torch.quint8)
    with pytest.raises((NotImplementedError, RuntimeError), match=r"quantized tensors|Quantized"):
        torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.quint8).to(device)


@pytest.mark.remote
def test_a_refused_template_is_not_taken_for_known(device):
    wide = torch.ones((1,) * 64, device=device).unsqueeze(0)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="only tensors with up to 64 dims are supported"):
            wide + wide
    assert (torch.ones(2, device=device) + 1).sum().item() == 4
