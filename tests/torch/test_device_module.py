"""`torch.sky` and what torch finds through it: accelerator, default devices, streams, generators, autocast."""

from __future__ import annotations

import psutil
import pytest
import torch
from servers import local_compute
from torch import nn

pytestmark = pytest.mark.remote


def test_accelerator_functions(device):
    accelerator = torch.accelerator
    before = accelerator.memory_allocated(device)
    x = torch.ones(1 << 20, device=device)
    assert accelerator.memory_allocated(device) - before == 4 << 20
    assert accelerator.max_memory_allocated(device) >= accelerator.memory_allocated(device)
    assert accelerator.memory_stats(device)["allocated_bytes.all.current"] >= x.untyped_storage().nbytes()
    assert accelerator.get_memory_info(device)[1] == torch.sky.mem_get_info(device)[1]
    accelerator.reset_peak_memory_stats(device)
    accelerator.reset_accumulated_memory_stats(device)
    accelerator.empty_cache()
    with accelerator.device_index(device.index):
        assert accelerator.current_device_index() == device.index
    with pytest.raises(RuntimeError, match="sky:99"):
        accelerator.set_device_index(99)


def test_free_memory_is_what_new_tensors_could_get(device):
    """Page caches, which Linux gives up when asked, are not in use. The server is on this machine."""
    free, total = torch.sky.mem_get_info(device)
    assert free > min(psutil.virtual_memory().available, total) / 2


def test_the_module_is_found(device):
    for argument in ("sky", device, None):
        assert (torch.get_device_module() if argument is None else torch.get_device_module(argument)) is torch.sky
    assert not torch.sky.is_current_stream_capturing()
    assert torch.sky.is_tf32_supported() is False


def test_default_device_and_device_context(device):
    def made() -> set[torch.device]:
        tensors = [torch.ones(3), torch.tensor([1, 2]), torch.randperm(5), torch.arange(3), torch.rand(2)]
        return {x.device for x in [*tensors, nn.Linear(2, 2).weight, nn.Embedding(3, 4).weight]}

    with device:
        assert made() == {device}
    torch.set_default_device(device)
    try:
        assert made() == {device}
        assert torch.get_default_device() == device
    finally:
        torch.set_default_device(None)
    assert made() == {torch.device("cpu")}


def test_streams_wait_for_each_other(device):
    current, other = torch.sky.current_stream(device), torch.sky.Stream(device)
    x = torch.zeros(4, device=device)
    with torch.sky.stream(other):
        x += 1
    current.wait_stream(other)
    event = current.record_event()
    other.wait_event(event)
    with torch.Stream(device):
        x *= 5
    x.record_stream(current)
    event.wait(other)
    assert x.tolist() == [5.0] * 4
    assert current.query()
    assert event.query()
    assert isinstance(event, torch.sky.Event)
    assert not isinstance(torch.Event("cpu"), torch.sky.Event)


def test_time_between_events_is_real(device):
    marks = [torch.sky.Event(enable_timing=True) for _ in range(3)]
    x = torch.rand(400, 400, device=device)
    marks[0].record()
    marks[1].record()
    for _ in range(20):
        x = (x @ x).tanh()
    marks[2].record()
    marks[2].synchronize()
    assert 0 <= marks[0].elapsed_time(marks[1]) < marks[1].elapsed_time(marks[2])
    with pytest.raises(ValueError, match="enable_timing"):
        torch.sky.Event().elapsed_time(torch.sky.Event())
    with pytest.raises(ValueError, match="recorded"):
        marks[0].elapsed_time(torch.sky.Event(enable_timing=True))


def test_generators(device):
    generator = torch.Generator(device).manual_seed(3)
    clone = generator.clone_state()
    first = torch.rand(4, generator=generator, device=device)
    assert torch.equal(first, torch.rand(4, generator=clone, device=device))
    with pytest.raises(RuntimeError, match="Expected a 'sky' device type for generator but found 'cpu'"):
        torch.rand(2, device=device, generator=torch.Generator())
    with pytest.raises(RuntimeError, match="devices, cpu and sky"):
        torch.rand(2, generator=generator)
    with torch.random.fork_rng(device_type="sky"):
        inside = torch.rand(4, device=device)
    assert torch.equal(inside, torch.rand(4, device=device))
    assert torch.equal(torch.sky.get_rng_state_all()[0], torch.sky.get_rng_state("sky:0"))


def test_autocast_of_a_custom_function(device):
    class Square(torch.autograd.Function):
        @staticmethod
        @torch.amp.custom_fwd(device_type="sky", cast_inputs=torch.float32)
        def forward(ctx, x):
            ctx.save_for_backward(x)
            assert not torch.is_autocast_enabled("sky")
            return x @ x

        @staticmethod
        @torch.amp.custom_bwd(device_type="sky")
        def backward(ctx, grad):
            (x,) = ctx.saved_tensors
            return grad @ x.T + x.T @ grad

    x = torch.randn(3, 3, device=device, requires_grad=True)
    with torch.autocast("sky"):
        assert torch.mm(x, x).dtype == torch.get_autocast_dtype("sky") == torch.float16
        y = Square.apply(x.half())
    y.sum().backward()
    assert y.dtype == x.grad.dtype == torch.float32
    with pytest.warns(UserWarning, match="not supported"), torch.autocast("sky", dtype=torch.float64):
        assert torch.mm(x, x).dtype == torch.float32


def test_autocast_to_half_with_a_scaler(same_on_both):
    """A few steps of the usual loop; a fp16 step on the server rounds as the local one does."""

    def program(device):
        net = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 2)).to(device)
        optimizer, scaler = torch.optim.AdamW(net.parameters()), torch.amp.GradScaler(device.type, init_scale=256.0)
        data, losses = torch.randn(16, 4).to(device), []
        for _ in range(4):
            optimizer.zero_grad()
            with torch.autocast(device.type, dtype=torch.float16):
                loss = nn.functional.mse_loss(net(data), data[:, :2])
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            norm = nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
            losses.append((loss.detach(), norm))
        return losses, scaler.get_scale()

    same_on_both(program, rtol=1e-3, atol=1e-3)


def test_a_tensor_of_another_server_is_another_device(device):
    """Each raises at its own line, with torch's words for two devices."""
    with local_compute("mixed") as (node, _):
        other = node.device()
        assert other != device
        a, b = torch.ones(2, 2, device=device), torch.ones(2, 2, device=other)
        mixed = {
            "add": lambda: a + b,
            "in place": lambda: a.add_(b),
            "out": lambda: torch.add(a, a, out=b),
            "matmul": lambda: a @ b,
            "cat": lambda: torch.cat([a, b]),
            "where": lambda: torch.where(a > 0, a, b),
            "index": lambda: torch.index_select(a, 0, torch.zeros(1, dtype=torch.int64, device=other)),
            "linear": lambda: nn.Linear(2, 2, device=other)(a),
            "cpu": lambda: a + torch.ones(2, 2),
            "cpu first": lambda: torch.ones(2, 2) + a,
            "cpu out": lambda: torch.add(a, a, out=torch.ones(2, 2)),
        }
        for name, program in mixed.items():
            with pytest.raises(RuntimeError, match="device") as caught:
                program()
            text = str(caught.value)
            assert str(device) in text or "sky" in text, (name, text)
        assert (a + a).sum().item() == (b + b).sum().item() == 8
