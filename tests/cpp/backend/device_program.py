"""Checks of the device `sky` alone, against the fake wire. Run by test_device.py in a process of its own, because the
library can be attached to one wire only. Prints one JSON object: check -> traceback, or null where it holds.

usage: device_program.py BACKEND_LIBRARY FAKE_WIRE_LIBRARY
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import threading
import traceback
import types
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

sky = torch.ops.skytorch
fake = torch.ops.skytorch_fake
CHECKS: list[Callable[[], None]] = []


class WireFailure(RuntimeError):
    """Stands for every exception class of skytorch.errors."""


def check(function: Callable[[], None]) -> Callable[[], None]:
    CHECKS.append(function)
    return function


def records(program: Callable[[], object]) -> list[str]:
    """What a program sends, without frees."""
    gc.collect()
    torch.empty(0, device="sky")
    fake.take_log()
    kept = program()
    log = [line for line in fake.take_log() if not line.startswith("free")]
    del kept
    return log


def ops(program: Callable[[], object]) -> list[str]:
    return [line.split()[1] for line in records(program) if line.startswith(("op ", "query "))]


def raises(kind: type[BaseException], text: str, program: Callable[[], object]) -> None:
    message = None
    try:
        program()
    except kind as error:
        message = str(error)
    assert message is not None, f"no {kind.__name__}"
    assert text in message, message


@check
def operators_arrive_whole() -> None:
    x = torch.randn(4, 8, device="sky")
    y = torch.randn(4, 8, device="sky")
    image = torch.randn(2, 3, 8, 8, device="sky")
    weight = torch.randn(5, 3, 3, 3, device="sky")
    table = torch.randn(10, 4, device="sky")
    index = torch.zeros(3, dtype=torch.int64, device="sky")
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: x + y, "aten::add.Tensor"),
        (lambda: x.add_(y), "aten::add_.Tensor"),
        (lambda: torch.randn(3, device="sky"), "aten::randn"),
        (lambda: torch.full((3,), 2.0, device="sky"), "aten::full"),
        (lambda: torch.ones_like(x), "aten::ones_like"),
        (lambda: torch.where(x > 0, x, 1.0), "aten::gt.Scalar aten::scalar_tensor aten::where.self"),
        (lambda: functional.layer_norm(x, (8,)), "aten::native_layer_norm"),
        (lambda: functional.embedding(index, table), "aten::embedding"),
        (lambda: functional.conv2d(image, weight), "aten::convolution"),
        (lambda: functional.dropout(x, 0.5), "aten::native_dropout"),
        (lambda: torch._foreach_add([x, y], 1.0), "aten::_foreach_add.Scalar"),
        (lambda: x.to(torch.float64), "aten::_to_copy"),
        (lambda: x.clone(), "aten::clone"),
        (lambda: torch.cat([x, y]), "aten::cat"),
        (lambda: x[index], "aten::index.Tensor"),
    ]
    for program, expected in cases:
        assert ops(program) == expected.split(), (expected, ops(program))


@check
def views_send_nothing() -> None:
    x = torch.randn(4, 6, device="sky")
    for view in (
        lambda: x.view(24),
        lambda: x.t(),
        lambda: x[1:, ::2],
        lambda: x.transpose(0, 1).unsqueeze(0).expand(3, 6, 4),
        lambda: x.reshape(2, 12).split(3, dim=1),
        lambda: x.detach().diagonal(),
        lambda: x.unfold(1, 2, 2),
        lambda: x.view(torch.int32),
        lambda: torch.view_as_complex(x.view(4, 3, 2)).conj().imag,
        lambda: x.unsafe_split(2, 1),
    ):
        assert records(view) == [], records(view)


@check
def one_template_for_one_key() -> None:
    x = torch.randn(3, 5, device="sky")
    y = torch.randn(3, 5, device="sky")
    x + y
    assert not any("define" in line for line in records(lambda: y + x))
    # Scalar values travel with the instance; their kind is in the key.
    torch.add(x, y, alpha=2)
    x * 1.5
    assert not any("define" in line for line in records(lambda: [torch.add(x, y, alpha=3), x * 2.5]))
    assert any("define" in line for line in records(lambda: torch.add(x, y, alpha=2.5)))
    # One storage twice is another template than two storages.
    assert "storages=1" in records(lambda: x + x)[0]
    # Where a scalar decides the shape it is part of the key.
    assert torch.arange(3, device="sky").shape == (3,)
    assert torch.arange(4, device="sky").shape == (4,)


@check
def template_slots_are_reused() -> None:
    x = torch.zeros(70_000, device="sky")
    fake.set_quiet(True)
    before = fake.counts()[1]
    for n in range(1, 66_500):
        x[:n].neg()
    assert fake.counts()[1] - before >= 66_400
    again = fake.counts()[1]
    for n in range(66_400, 66_500):
        x[:n].neg()
    assert fake.counts()[1] == again, "what was used last is still known"
    fake.set_quiet(False)


@check
def storages_are_freed_in_order_and_ids_never_come_back() -> None:
    gc.collect()
    torch.empty(0, device="sky")
    fake.take_log()
    x = torch.empty(4, device="sky")
    first = next(line.split()[1] for line in fake.take_log() if line.startswith("alloc"))
    address = x.data_ptr()
    other = torch.empty(4, device="sky")
    assert address != other.data_ptr()
    fake.take_log()
    del x
    assert fake.take_log() == []
    y = torch.empty(4, device="sky")
    log = fake.take_log()
    assert log[0] == f"free {first}", log
    assert int(log[1].split()[1]) > int(first), log
    del y


@check
def nothing_is_left_after_many_operators() -> None:
    x = torch.ones(4, device="sky")
    fake.set_quiet(True)
    n_ops, _, n_frees, _ = fake.counts()
    for _ in range(100_000):
        x = x + 1
    fake.set_quiet(False)
    made, freed = fake.counts()[0] - n_ops, fake.counts()[2] - n_frees
    assert made == 100_000
    assert freed >= made - 3


@check
def placeholder_addresses_fault() -> None:
    address = torch.empty(4, device="sky").data_ptr()
    child = os.fork()
    if child == 0:
        import ctypes

        ctypes.string_at(address, 1)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), status
    assert os.WTERMSIG(status) == signal.SIGSEGV


@check
def out_is_resized_here_first() -> None:
    x = torch.randn(4, 4, device="sky")
    out = torch.empty(0, device="sky")
    log = records(lambda: torch.add(x, x, out=out))
    assert out.shape == (4, 4)
    assert log[0].startswith("resize"), log
    assert log[-1].startswith("op aten::add.out"), log
    assert ops(lambda: torch.add(x, x, out=out)) == ["aten::add.out"]


@check
def mistakes_raise_at_their_line() -> None:
    x = torch.randn(4, 4, device="sky")
    sent = records(
        lambda: [
            raises(RuntimeError, "The size of tensor a (4)", lambda: x + torch.randn(3, device="sky")),
            raises(
                RuntimeError, "doesn't match the broadcast shape", lambda: x[0].add_(torch.randn(4, 4, device="sky"))
            ),
            raises(RuntimeError, "can't be cast", lambda: torch.ones(4, 4, device="sky", dtype=torch.int64).mul_(x)),
            raises(RuntimeError, "mat1 and mat2 shapes cannot be multiplied", lambda: x @ x[:3]),
            raises(RuntimeError, "Expected all tensors to be on the same device", lambda: x + torch.ones(4)),
            raises(RuntimeError, "Expected a 'sky' device", lambda: x.normal_(generator=torch.Generator())),
            raises(NotImplementedError, "SparseCsr", lambda: torch.zeros_like(x, layout=torch.sparse_csr)),
        ]
    )
    assert not any(line.startswith("op aten::mm") for line in sent)


@check
def numbers_on_the_cpu_go_in_as_scalars() -> None:
    x = torch.randn(4, device="sky")
    assert "scalars=2" in records(lambda: x + torch.tensor(2.0))[0]
    assert (x.to(torch.int32) + torch.tensor(2.5)).dtype == torch.float32
    assert (x.to(torch.int32) * 2.5).dtype == torch.float32


@check
def bytes_come_back_as_they_went() -> None:
    base = torch.arange(24.0).reshape(4, 6)
    for host in (base, base.t(), base[:, ::2], base[1:3], base.to(torch.int8), base.bool(), base.expand(2, 4, 6)):
        there = host.to("sky")
        assert torch.equal(there.cpu(), host), host
    there = base.to("sky")
    assert torch.equal(there.t().cpu(), base.t())
    assert records(lambda: torch.empty(0, 3).to("sky").cpu())[1:] == []


@check
def non_blocking_uploads_keep_their_source() -> None:
    there = torch.empty(1000, device="sky")
    there.copy_(torch.full((1000,), 3.0), non_blocking=True)
    assert there.cpu().eq(3.0).all()


@check
def modules_keep_their_parameters() -> None:
    linear, embedding = nn.Linear(4, 4), nn.Embedding(4, 4)
    linear.weight = embedding.weight
    weight = linear.weight
    nn.Sequential(linear, embedding).to("sky")
    assert linear.weight is embedding.weight is weight
    assert weight.device.type == "sky"


@check
def gradients_flow() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3)).to("sky")
    optimizer = torch.optim.AdamW(net.parameters())
    loss = functional.cross_entropy(net(torch.randn(2, 1, 8, 8, device="sky")), torch.zeros(2, dtype=int).to("sky"))
    loss.backward()
    step = ops(optimizer.step)
    assert all(p.grad is not None and p.grad.shape == p.shape for p in net.parameters())
    assert all("foreach" in name or "zeros" in name for name in step), step


@check
def attention_and_cells_follow_the_servers_device() -> None:
    q = torch.randn(1, 2, 8, 16, device="sky")
    attention = functional.scaled_dot_product_attention
    assert ops(lambda: attention(q, q, q)) == ["aten::_scaled_dot_product_flash_attention_for_cpu"]
    lstm = nn.LSTM(4, 4).to("sky")
    x = torch.randn(2, 1, 4, device="sky")
    assert not any("_thnn_fused" in name for name in ops(lambda: lstm(x)))
    index = sky.open_device(2, 1, "cuda")
    far = f"sky:{index}"
    q = torch.randn(1, 2, 8, 16, device=far)
    assert ops(lambda: attention(q, q, q)) == ["aten::_scaled_dot_product_efficient_attention"]
    lstm = nn.LSTM(4, 4).to(far)
    x = torch.randn(2, 1, 4, device=far)
    assert "aten::_thnn_fused_lstm_cell" in ops(lambda: lstm(x))
    sky.close_device(index)


@check
def a_closed_device_is_named() -> None:
    index = sky.open_device(3, 0, "cpu")
    x = torch.ones(3, device=f"sky:{index}")
    raises(RuntimeError, "same device", lambda: x + torch.ones(3, device="sky:0"))
    sky.close_device(index)
    raises(WireFailure, "closed", lambda: x + 1)
    raises(WireFailure, "closed", x.cpu)
    raises(WireFailure, f"sky:{index} is not open", lambda: torch.ones(3, device=f"sky:{index}"))
    again = sky.open_device(3, 0, "cpu")
    assert again == index
    sky.close_device(again)


@check
def generators_are_numbers() -> None:
    generator = torch.Generator("sky")
    number = records(lambda: generator.manual_seed(7))[0].split()
    assert number[1] == "2"
    assert number[-1] == "7"
    assert generator.initial_seed() == 7
    assert "scalars=1" in records(lambda: torch.randn(3, device="sky", generator=generator))[0]
    fake.take_log()
    generator = None  # type: ignore[assignment]
    gc.collect()
    torch.empty(0, device="sky")
    assert f"call 5 {number[2]}" in fake.take_log()


@check
def flags_travel_when_they_change() -> None:
    x = torch.ones(3, device="sky")
    x + 1
    torch.set_default_dtype(torch.float64)
    try:
        log = records(lambda: torch.ones(3, dtype=torch.int64, device="sky") + 1.5)
        assert any(line == f"call 1 9 {7}" for line in log), log
    finally:
        torch.set_default_dtype(torch.float32)


@check
def threads_share_a_session() -> None:
    fake.set_quiet(True)
    before = fake.counts()[0]

    def work() -> None:
        x = torch.zeros(8, device="sky")
        for n in range(2000):
            x = x + x[: 1 + n % 8].sum()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    fake.set_quiet(False)
    assert fake.counts()[0] - before == 4 * (1 + 2 * 2000)


@check
def autocast_casts() -> None:
    linear = nn.Linear(4, 4).to("sky")
    with torch.autocast("sky", dtype=torch.bfloat16):
        y: Tensor = linear(torch.randn(2, 4, device="sky"))
        assert y.dtype == torch.bfloat16
        assert functional.softmax(y, 1).dtype == torch.float32


def attach(backend: str, wire: str) -> None:
    torch.ops.load_library(backend)  # type: ignore[no-untyped-call]
    torch.ops.load_library(wire)  # type: ignore[no-untyped-call]
    module = types.ModuleType("torch.sky")
    module.__dict__.update(
        device_count=lambda: sky.device_count(),
        current_device=lambda: sky.current_device(),
        is_available=lambda: True,
        is_initialized=lambda: True,
        get_amp_supported_dtype=lambda: [torch.bfloat16, torch.float16],
        _is_in_bad_fork=lambda: False,
        manual_seed_all=lambda seed: None,
    )
    torch._register_device_module("sky", module)
    for code in range(1, 16):
        sky.set_exception(code, id(WireFailure))
    sky.attach(fake.api())
    sky.open_device(1, 0, "cpu")


def main() -> None:
    attach(*sys.argv[1:])
    results: dict[str, str | None] = {}
    for function in CHECKS:
        try:
            function()
            results[function.__name__] = None
        except BaseException:
            results[function.__name__] = traceback.format_exc()
            fake.set_quiet(False)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
