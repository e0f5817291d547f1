"""Two servers at once: separate devices, copies from server to server, and a Cluster."""

from __future__ import annotations

import asyncio
import copy
import threading

import pytest
import torch
from servers import local_compute
from torch import nn

pytestmark = pytest.mark.remote


@pytest.fixture(scope="module")
def two():
    with local_compute("left") as (left, _), local_compute("right") as (right, _):
        yield left, right


@pytest.fixture
def devices(two):
    return two[0].device(), two[1].device()


def test_devices_are_distinct(devices):
    a, b = devices
    assert a != b
    assert torch.ones(2, device=a).device == a
    with pytest.raises(RuntimeError, match="same device"):
        torch.ones(2, device=a) + torch.ones(2, device=b)


@pytest.mark.parametrize("shape", [(3,), (0,), (5, 7), (3, 1024, 1024)], ids=str)
def test_to_the_other(devices, shape):
    a, b = devices
    x = torch.randn(shape)
    there = x.to(a).to(b)
    assert there.device == b
    assert torch.equal(there.cpu(), x)
    assert torch.equal(there.to(a).cpu(), x)


@pytest.mark.parametrize("layout", ["transposed", "sliced", "channels_last", "half", "conj"])
def test_layouts(devices, layout):
    a, b = devices
    make = {
        "transposed": lambda: torch.randn(4, 5).t(),
        "sliced": lambda: torch.randn(6, 8)[1::2, 3:],
        "channels_last": lambda: torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "half": lambda: torch.randn(4, 5).half(),
        "conj": lambda: torch.randn(4, 5, dtype=torch.complex64).conj(),
    }[layout]
    x = make()
    there = x.to(a).to(b)
    assert torch.equal(there.cpu().resolve_conj(), x.resolve_conj())
    assert there.stride() == x.to(a).stride()
    into = torch.zeros(tuple(reversed(x.shape)), dtype=x.dtype, device=b).permute(*reversed(range(x.dim())))
    into.copy_(x.to(a))
    assert torch.equal(into.cpu(), x.resolve_conj())
    converted = torch.zeros(x.shape, dtype=torch.complex128, device=b).copy_(x.to(a))
    assert torch.equal(converted.cpu(), x.to(torch.complex128).resolve_conj())


def test_bytes_do_not_pass_through_the_client(two):
    left, right = two
    x = torch.ones(4 << 20, device=left.device())  # 16 MiB
    torch.sky.synchronize(left.device())
    before = [node.stats() for node in two]
    y = x.to(right.device())
    assert y.sum().item() == 4 << 20
    after = [node.stats() for node in two]
    for one, other in zip(before, after, strict=True):
        assert other["bytes_received"] - one["bytes_received"] < 1 << 20
        assert other["lane_bytes_sent"] == one["lane_bytes_sent"]


def test_weights_by_data_copy(devices):
    a, b = devices
    policy, replica = nn.Linear(4, 3).to(a), nn.Linear(4, 3).to(b)
    for p, q in zip(policy.parameters(), replica.parameters(), strict=True):
        q.data.copy_(p.data)
    x = torch.randn(2, 4)
    assert torch.equal(policy(x.to(a)).cpu(), replica(x.to(b)).cpu())
    twin = copy.deepcopy(policy).to(b)
    assert torch.equal(twin.weight.cpu(), policy.weight.cpu())


def test_a_loop_of_copies_is_one_transfer(two):
    left, right = two
    sources = [torch.full((n,), float(n), device=left.device()) for n in range(1, 101)]
    targets = [torch.zeros(n, device=right.device()) for n in range(1, 101)]
    taken = []
    for _ in range(5):
        torch.sky.synchronize(left.device())
        torch.sky.synchronize(right.device())
        before = [node.stats()["records"] for node in two]
        for source, target in zip(sources, targets, strict=True):
            target.data.copy_(source.data)
        torch.sky.synchronize(left.device())
        torch.sky.synchronize(right.device())
        # The two synchronizations are records as well.
        taken.append([node.stats()["records"] - n - 1 for node, n in zip(two, before, strict=True)])
    assert all(torch.equal(target.cpu(), source.cpu()) for source, target in zip(sources, targets, strict=True))
    # The first round defines templates. A loop that stands still for some milliseconds is sent in parts.
    assert min(taken[1:]) == [1, 1], taken
    assert max(map(max, taken[1:])) < 50, taken


def test_copies_in_a_row_keep_their_order(devices):
    a, b = devices
    x, y = torch.arange(6.0, device=a), torch.zeros(6, device=b)
    for _ in range(20):
        y.copy_(x)  # twice the same, then parts of it, in a new order
        y.copy_(x)
        y[:3].copy_(x[3:])
        y[3:].copy_(x[:3])
        assert y.tolist() == [3, 4, 5, 0, 1, 2]
        y.zero_()
        y[::2].copy_(x[1::2])
        y[1::2].copy_(x[::2])
        y.view(2, 3).t()[1].copy_(x.view(2, 3)[1, :2])
        x.zero_()
        assert y.tolist() == [1, 3, 3, 2, 4, 4]
        x.copy_(torch.arange(6.0))


@pytest.mark.parametrize("layout", ["dense", "transposed", "bytes first"])
def test_layouts_in_a_row(devices, layout):
    a, b = devices
    make = {
        "dense": lambda i: torch.randn(i + 1, 3),
        "transposed": lambda i: torch.randn(3, i + 1).t(),
        "bytes first": lambda i: torch.randint(0, 255, (i + 1, 3), dtype=[torch.uint8, torch.int64][i % 2]),
    }[layout]
    values = [make(i) for i in range(20)]
    sources = [value.to(a) for value in values]
    targets = [torch.zeros(value.shape, dtype=value.dtype, device=b) for value in values]
    for source, target in zip(sources, targets, strict=True):
        target.copy_(source)
    for value, target in zip(values, targets, strict=True):
        assert torch.equal(target.cpu(), value)


def test_a_failed_source_spoils_its_own_copy_only(devices):
    a, b = devices
    good = torch.ones(4, device=a)
    bad = good[torch.tensor([9], device=a)]  # fails on the server
    targets = [torch.zeros(4, device=b), torch.zeros(1, device=b), torch.zeros(4, device=b)]
    for source, target in zip((good, bad, good), targets, strict=True):
        target.copy_(source)
    assert targets[0].sum().item() == 4
    assert targets[2].sum().item() == 4
    with pytest.raises(RuntimeError):
        targets[1].cpu()
    with pytest.raises(IndexError):
        bad.cpu()
    for device in devices:  # what nobody has read
        while True:
            try:
                torch.sky.synchronize(device)
                break
            except (RuntimeError, IndexError):
                pass


def test_threads_copy_and_compute_at_once(devices):
    a, b = devices

    def work(source: torch.device, target: torch.device, seed: float) -> None:
        x = [torch.full((100,), seed + i, device=source) for i in range(10)]
        y = [torch.zeros(100, device=target) for _ in range(10)]
        for round_ in range(20):
            for p, q in zip(x, y, strict=True):
                q.data.copy_(p.data)
            for p in x:
                p.add_(1)
            assert y[round_ % 10][0].item() == seed + round_ % 10 + round_

    errors: list[BaseException] = []

    def guarded(*arguments: object) -> None:
        try:
            work(*arguments)
        except BaseException as error:
            errors.append(error)

    pairs = [(a, b, 0.0), (b, a, 1000.0), (a, b, 2000.0)]
    threads = [threading.Thread(target=guarded, args=pair) for pair in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def test_a_copy_is_in_order_with_ops_on_both(devices):
    a, b = devices
    x, y = torch.zeros(1000, device=a), torch.zeros(1000, device=b)
    for step in range(20):
        x.fill_(step)
        y.copy_(x)
        x.fill_(-1)
        y.add_(1)
        assert y[0].item() == step + 1


def test_opposite_copies_do_not_deadlock(devices):
    a, b = devices
    x, y = torch.ones(1 << 20, device=a), torch.ones(1 << 20, device=b) * 2

    def copy_many(target: torch.device, source: torch.Tensor) -> None:
        for _ in range(20):
            source.to(target)

    threads = [threading.Thread(target=copy_many, args=pair) for pair in ((b, x), (a, y))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert x.sum().item() == 1 << 20
    assert y.sum().item() == 2 << 20


def test_autograd_across(devices):
    a, b = devices
    w = torch.ones(3, device=a, requires_grad=True)
    loss = ((w * 2).to(b) * torch.arange(3.0, device=b)).sum()
    loss.backward()
    assert w.grad.device == a
    assert w.grad.tolist() == [0, 2, 4]


@pytest.mark.slow
def test_one_dies_the_other_lives():
    import skytorch

    with local_compute("survivor") as (survivor, _):
        kept = torch.ones(3, device=survivor.device())
        with pytest.raises(skytorch.ConnectionLost), local_compute("victim") as (victim, process):  # noqa: PT012
            x = torch.ones(3, device=victim.device())
            torch.sky.synchronize(victim.device())
            process.kill()
            process.wait()
            x.cpu()
        assert kept.sum().item() == 3


def test_cluster():
    from skytorch.client import Cluster, Compute

    async def run() -> list[float]:
        async with Cluster(Compute("one", provider="local"), Compute("two", provider="local")) as cluster:
            one, two = cluster
            assert len(cluster) == 2
            assert cluster[1] is two
            assert cluster.is_ready()
            return torch.arange(3.0, device=one.device()).to(two.device()).tolist()

    assert asyncio.run(run()) == [0, 1, 2]
