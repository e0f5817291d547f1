"""Bytes in every direction: between host and device, within a device, of every layout, size and dtype."""

from __future__ import annotations

import pytest
import torch

LAYOUTS = {
    "contiguous": lambda x: x,
    "transposed": lambda x: x.transpose(0, 2),
    "sliced": lambda x: x[:, 1:, ::2],
    "offset": lambda x: x[1:],
    "expanded": lambda x: x[:, :1].expand(-1, 6, -1),
    "one_element": lambda x: x[1, 2, 3],
    "empty": lambda x: x[:, :0],
    "negative_view": lambda x: torch._neg_view(x),
    "overlapping": lambda x: x.flatten().unfold(0, 4, 1),
}
DTYPES = (
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
    torch.uint8, torch.bool, torch.complex64, torch.complex128, torch.float8_e4m3fn, torch.uint16, torch.uint32,
)  # fmt: skip
BIG = (3, 1024, 1024)  # 12 MiB of float32: beyond what rides in the op stream


def source(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    values = torch.randint(0, 2 if dtype is torch.bool else 100, shape, generator=torch.Generator().manual_seed(0))
    return values.to(dtype)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_upload(same_on_both, layout):
    same_on_both(lambda device: LAYOUTS[layout](source(4, 6, 8)).to(device, copy=True))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_download(same_on_both, layout):
    same_on_both(
        lambda device: LAYOUTS[layout](source(4, 6, 8).to(device)).cpu(), ignore=("strides", "offset", "neg")
    )


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name not in ("expanded", "overlapping", "empty")])
def test_copy_into_a_layout(same_on_both, layout):
    """Host to device, device to host and device to device, into something that is not contiguous."""

    def program(device):
        results = []
        for where, origin in ((device, "cpu"), ("cpu", device), (device, device)):
            base = torch.zeros(4, 6, 8, device=where)
            target = LAYOUTS[layout](base)
            target.copy_(source(*target.shape).to(origin) + 1)
            results.append(base)
        return [result.cpu() for result in results]

    same_on_both(program)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_there_and_back(same_on_both, dtype):
    same_on_both(lambda device: source(5, 7, dtype=dtype).to(device).cpu())


@pytest.mark.parametrize("dtype", DTYPES[:12], ids=str)
def test_conversion_on_the_way(same_on_both, dtype):
    def program(device):
        up = source(5, 7).to(device, dtype)
        down = source(5, 7).to(device).to("cpu", dtype)
        across = torch.zeros(5, 7, dtype=dtype, device=device).copy_(source(5, 7))
        back = torch.zeros(5, 7, dtype=dtype).copy_(source(5, 7).to(device))
        return [up, down, across, back, up.to(torch.float32)]

    same_on_both(program)


def test_conj_and_neg_bits(same_on_both):
    def program(device):
        z = torch.complex(source(3, 4), source(3, 4) + 1)
        on_device = z.to(device)
        target = torch.zeros(3, 4, dtype=torch.complex64, device=device)
        target.conj().copy_(z)
        return [
            z.conj().to(device).resolve_conj(),
            on_device.conj().cpu().resolve_conj(),
            on_device.conj().clone(),
            target,
            on_device.conj().imag.cpu(),
            torch.zeros(3, 4, dtype=torch.complex64).copy_(on_device.conj()),
            on_device.mH @ on_device,
        ]

    same_on_both(program, ignore=("conj", "neg", "strides", "offset"))


def test_broadcasting_copy(same_on_both):
    def program(device):
        x = torch.zeros(3, 4, device=device)
        x.copy_(torch.arange(4.0))
        x[1].copy_(torch.tensor(5.0))
        y = torch.zeros(3, 4).copy_(torch.arange(4.0, device=device))
        return [x, y]

    same_on_both(program)


def test_setitem_from_the_host(same_on_both):
    def program(device):
        x = torch.zeros(4, 4, device=device)
        x[0] = torch.arange(4.0)
        x[1:3, 1:3] = torch.ones(2, 2)
        x[3, 3] = 8
        x[3, 0] = torch.tensor(2)
        x[:, 2] = torch.tensor([1.0, 2.0, 3.0, 4.0])
        return x

    same_on_both(program)


@pytest.mark.parametrize(
    "memory_format", [torch.channels_last, torch.contiguous_format, torch.preserve_format], ids=str
)
def test_memory_formats(same_on_both, memory_format):
    def program(device):
        image = source(2, 3, 5, 7).contiguous(memory_format=torch.channels_last)
        there = image.to(device, memory_format=memory_format)
        return [there, there.cpu(), there.clone(), torch.empty_like(there).zero_(), there + 1]

    same_on_both(program)


def test_channels_last_3d(same_on_both):
    def program(device):
        volume = source(2, 3, 4, 5, 6).to(memory_format=torch.channels_last_3d).to(device)
        return [volume, volume * 2, volume.cpu()]

    same_on_both(program)


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 0, 2)])
def test_zero_elements(same_on_both, shape):
    def program(device):
        x = torch.empty(shape, device=device)
        x.copy_(torch.empty(shape))
        return [x, x.cpu(), x.clone(), torch.empty(shape).copy_(x), x.to(torch.int32)]

    same_on_both(program)


def test_big_there_and_back(same_on_both):
    same_on_both(lambda device: (source(*BIG).to(device) + 1).cpu())


def test_big_of_every_layout(same_on_both):
    def program(device):
        x = source(*BIG)
        up = [x.transpose(0, 2).to(device), x[:, ::2].to(device), x.flip(0).to(device)]
        target = torch.zeros(1024, 1024, 3, device=device)
        target.permute(2, 0, 1).copy_(x)
        down = up[0].transpose(0, 1).cpu()
        return [*(part.sum(dim=0) for part in up), target.cpu(), down, x.to(device, torch.float64).sum(dim=0)]

    same_on_both(program, ignore=("strides",))


@pytest.mark.parametrize("shape", [(16, 16), (900, 900), BIG], ids=["1KiB", "3MiB", "12MiB"])
def test_source_may_change_after_a_blocking_upload(device, shape):
    """INV-4: the bytes that count are those at the time of the call."""
    x = source(*shape)
    expected = x.clone()
    y = x.to(device, copy=True)
    x.fill_(-1)
    z = torch.empty(shape, device=device)
    x.copy_(expected)
    z.copy_(x)
    x.fill_(-2)
    assert torch.equal(y.cpu(), expected)
    assert torch.equal(z.cpu(), expected)


@pytest.mark.parametrize("shape", [(16, 16), BIG], ids=["1KiB", "12MiB"])
def test_non_blocking_keeps_the_source_alive(device, shape):
    expected = source(*shape)
    copies = []
    for _ in range(4):
        copies.append(expected.clone().to(device, non_blocking=True))  # the clone is dropped at once
    for copy in copies:
        assert torch.equal(copy.cpu(), expected)


def test_order_of_uploads_and_ops(device):
    """INV-1: an op never overtakes an upload, large or small, nor the other way round."""
    x = torch.zeros(BIG, device=device)
    total = torch.zeros((), device=device, dtype=torch.float64)
    for step in range(4):
        x.copy_(torch.full(BIG, float(step)))
        total += x.mean(dtype=torch.float64)
        x.zero_()
        x[0, 0, 0].copy_(torch.tensor(float(step)))
        total += x.sum(dtype=torch.float64)
    assert total.item() == 2 * (0 + 1 + 2 + 3)


def test_pinned_memory_and_numpy(device):
    x = source(4, 5)
    pinned = x.pin_memory() if device.type != "cpu" else x
    assert torch.equal(pinned.to(device, non_blocking=True).cpu(), x)
    assert (x.to(device).cpu().numpy() == x.numpy()).all()
    if device.type != "cpu":
        with pytest.raises(TypeError, match="convert"):
            x.to(device).numpy()


def test_tolist_item_and_bool(same_on_both):
    def program(device):
        x = torch.arange(6, device=device).reshape(2, 3)
        return [
            x.tolist(),
            x[1, 1].item(),
            bool(x.any()),
            float(x.float().mean()),
            int(x.max()),
            x.double()[0].tolist(),
            (x > 2).tolist(),
            torch.tensor(1 + 2j, device=device).item(),
            torch.equal(x, x.clone()),
            x.half()[1, 2].item(),
        ]

    same_on_both(program)


def test_data_assignment_and_swap(same_on_both):
    def program(device):
        p = torch.nn.Parameter(torch.zeros(3))
        p.data = torch.arange(3.0, device=device)
        (p * 2).sum().backward()
        return p

    same_on_both(program)
