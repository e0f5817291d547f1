"""Autocast, gradient scaling, streams, events and the rest of the `torch.sky` module."""

from __future__ import annotations

import pytest
import torch
from torch import nn


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_casts_as_on_cpu(same_on_both, dtype):
    def program(device):
        net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.LayerNorm(8), nn.Linear(8, 4)).to(device)
        x, target = torch.randn(3, 6).to(device), torch.tensor([0, 1, 2], device=device)
        with torch.autocast(device.type, dtype=dtype):
            out = net(x)
            product = x @ x.T
            loss = nn.functional.cross_entropy(out.float(), target)
        loss.backward()
        return [out.dtype, product.dtype, loss, out, list(net.parameters())]

    same_on_both(program, rtol=2e-2, atol=2e-2)


def test_autocast_nesting_and_custom_function(same_on_both):
    def program(device):
        x = torch.randn(4, 4).to(device)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            inside = x @ x
            with torch.autocast(device.type, enabled=False):
                outside = x @ x
            mixed = torch.cat([inside, x])
        return [inside.dtype, outside.dtype, mixed.dtype, torch.is_autocast_enabled(device.type)]

    same_on_both(program)


def test_grad_scaler(device):
    w = torch.ones(3, device=device, requires_grad=True)
    optimizer = torch.optim.SGD([w], lr=1.0)
    scaler = torch.amp.GradScaler(device.type, init_scale=8.0)
    scaler.scale((w * torch.arange(3.0, device=device)).sum()).backward()
    assert w.grad.tolist() == [0, 8, 16]
    scaler.step(optimizer)
    scaler.update()
    assert w.tolist() == [1, 0, -1]
    scaler.scale((w * float("inf")).sum()).backward()
    before = w.tolist()
    scaler.step(optimizer)  # skipped: the gradient is not finite
    scaler.update()
    assert w.tolist() == before
    assert scaler.get_scale() == 4.0


@pytest.mark.remote
def test_module_functions(compute):
    device = compute.device()
    assert torch.sky.is_available()
    assert torch.sky.device_count() >= 1
    assert torch.accelerator.current_accelerator().type == "sky"
    assert torch.accelerator.device_count() == torch.sky.device_count()
    assert isinstance(torch.sky.get_device_name(device), str)
    assert torch.sky.get_device_properties(device).total_memory > 1 << 20
    free, total = torch.sky.mem_get_info(device)
    assert 0 < free <= total
    assert torch.sky.memory_reserved(device) >= 0
    assert "llocated" in torch.sky.memory_summary(device)
    assert torch.sky.is_bf16_supported()
    assert torch.bfloat16 in torch.sky.get_amp_supported_dtype()
    torch.sky.get_device_capability(device)
    dtypes = torch.accelerator.get_device_capability(device)["supported_dtypes"]
    assert {torch.bool, torch.float32, torch.bfloat16, torch.complex64, torch.uint16} <= dtypes
    assert not {torch.qint8, torch.bits8} & dtypes
    torch.sky.empty_cache()
    with torch.sky.device(device):
        assert torch.sky.current_device() == device.index
        assert torch.ones(2, device="sky").device == device
    torch.sky.set_device(device)
    torch.accelerator.synchronize()
    assert device in [torch.device("sky", index) for index in range(16)]
    assert compute.device("cpu") == device
    assert [str(name) for name in compute.devices()]


@pytest.mark.remote
def test_streams_and_events(device):
    stream, begin, end = (
        torch.sky.Stream(device),
        torch.sky.Event(enable_timing=True),
        torch.sky.Event(enable_timing=True),
    )
    x = torch.rand(700, 700, device=device)
    begin.record()
    with torch.sky.stream(stream) if hasattr(torch.sky, "stream") else stream:
        for _ in range(20):
            x = (x @ x).tanh()
    end.record()
    end.synchronize()
    assert end.query()
    assert begin.elapsed_time(end) > 1.0
    stream.synchronize()


@pytest.mark.remote
def test_peak_memory(device):
    torch.sky.synchronize(device)
    torch.sky.reset_peak_memory_stats(device)
    before = torch.sky.max_memory_allocated(device)
    x = torch.ones(1 << 20, device=device)
    del x
    torch.sky.synchronize(device)
    assert torch.sky.max_memory_allocated(device) >= before + (4 << 20)
