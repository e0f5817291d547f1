"""Loaders with workers, and tensors that would have to change their process: by fork, spawn and forkserver."""

from __future__ import annotations

import multiprocessing
import pickle
from multiprocessing.reduction import ForkingPickler

import pytest
import skytorch  # noqa: F401  # a worker that is spawned has no conftest.py
import torch
from torch.utils.data import DataLoader, Dataset

pytestmark = pytest.mark.remote


class Numbers(Dataset):
    def __len__(self) -> int:
        return 8

    def __getitem__(self, i: int) -> tuple[torch.Tensor, dict[str, int]]:
        return torch.full((3,), float(i)), {"y": i}


@pytest.mark.parametrize("pinned", [False, True], ids=["", "pinned"])
@pytest.mark.parametrize(
    "method", ["fork", *(pytest.param(m, marks=pytest.mark.slow) for m in ("spawn", "forkserver"))]
)
def test_loader_with_workers(device, method, pinned):
    loader = DataLoader(Numbers(), batch_size=4, num_workers=2, pin_memory=pinned, multiprocessing_context=method)
    sums = [(x.to(device, non_blocking=True).sum().item(), labels["y"].tolist()) for x, labels in loader]
    assert sums == [(18.0, [0, 1, 2, 3]), (66.0, [4, 5, 6, 7])]


class Sums(Numbers):
    """Computed in the worker, on a server of its own."""

    def __getitem__(self, i: int) -> torch.Tensor:
        return (torch.full((3,), float(i), device="sky") + 1).sum().cpu()


@pytest.mark.slow
def test_workers_of_a_loader_that_use_the_device_themselves():
    loader = DataLoader(Sums(), batch_size=4, num_workers=1, multiprocessing_context="spawn")
    assert [sums.tolist() for sums in loader] == [[3.0, 6.0, 9.0, 12.0], [15.0, 18.0, 21.0, 24.0]]


def test_loader_with_a_default_device(device):
    torch.set_default_device(device)
    try:
        loader = DataLoader(Numbers(), batch_size=4, shuffle=True, generator=torch.Generator(device))
        assert {x.device for x, _ in loader} == {device}
    finally:
        torch.set_default_device(None)


def test_a_tensor_is_not_sent_to_another_process(device):
    x = torch.ones(3, device=device)
    for value in (x, torch.nn.Parameter(x), {"nested": [x]}):
        with pytest.raises(NotImplementedError, match=r"send tensor\.cpu\(\)"):
            ForkingPickler.dumps(value)
    with pytest.raises(NotImplementedError, match=r"send tensor\.cpu\(\)"):
        multiprocessing.get_context("spawn").Process(target=print, args=(x,)).start()
    assert torch.equal(pickle.loads(ForkingPickler.dumps(torch.ones(3))), torch.ones(3))


def test_a_queue_fed_by_a_thread_raises_at_its_reader(device):
    """As a DataLoader's does: without the refusal in the tensor's place, `get` would wait for ever."""
    queue = torch.multiprocessing.get_context("spawn").Queue()
    queue.put(torch.ones(3, device=device))
    with pytest.raises(NotImplementedError, match="its session belongs to this one"):
        queue.get(timeout=30)
    queue.put(torch.ones(3))
    assert queue.get(timeout=30).sum().item() == 3
