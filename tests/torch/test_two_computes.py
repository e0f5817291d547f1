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
