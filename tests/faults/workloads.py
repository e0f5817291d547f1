"""The programs that faults are put into. Each returns a digest of all that it read back.

They run in the client process (runner.py) and are deterministic: an undisturbed run of the same server gives the same
digest bit by bit. Numbers differ everywhere, so that a byte at a wrong place shows.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))
BATCHES = 3
BIG = 3 << 20  # floats: 12 MiB, a lane of a dozen messages


def digest(tensors: list[torch.Tensor]) -> str:
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def training(devices: list[torch.device], batches: int = BATCHES) -> str:
    """Steps of the digits example: weights, buffers and losses."""
    from train_digits import DigitsNet, digits

    (device, *_) = devices
    torch.manual_seed(1)
    images, labels = digits()[0].tensors
    model = DigitsNet().to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-2)
    losses = []
    for step in range(batches):
        batch = torch.arange(step * 64, step * 64 + 64) % len(labels)
        loss = nn.functional.cross_entropy(model(images[batch].to(device)), labels[batch].to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(torch.tensor(loss.item()))
    return digest([*model.state_dict().values(), *losses])


def upload(devices: list[torch.device]) -> str:
    """Small ones, which ride in the stream; one on a lane whose source is copied; one from its own memory."""
    (device, *_) = devices
    small = [torch.arange(100.0) + number for number in range(20)]
    there = [x.to(device) for x in small]
    middle = torch.arange(1 << 18).to(device)
    big = torch.arange(BIG, dtype=torch.int32)
    large = big.to(device)
    big.zero_()  # INV-4: the source is the program's again
    later = large * 2 + 1
    return digest([torch.stack(there).sum(dim=0), middle, large, later])


def download(devices: list[torch.device]) -> str:
    """Values made on the server: small ones, large ones, and some that are changed right after they were read."""
    (device, *_) = devices
    x = torch.arange(BIG, dtype=torch.int32, device=device)
    read = [x.cpu()]
    x.mul_(3)
    read += [x[number].cpu() for number in range(0, 1000, 100)]
    read += [torch.tensor(x.sum().item()), x.cpu()]
    return digest(read)


def copy(devices: list[torch.device]) -> str:
    """Between two Computes, there and back, small and large, with work before and after on both."""
    a, b = devices
    x = torch.arange(BIG, dtype=torch.int32, device=a)
    y = x.to(b)
    x.fill_(-1)
    y.add_(1)
    back = y.to(a) * 2
    small = torch.arange(10.0, device=b).to(a)
    # In a row, so that they travel together: what lies in a message of its own and what does not.
    row = [torch.full((n,), n, dtype=torch.int32, device=a) for n in (1, 1000, 50_000, 3)]
    there = [torch.zeros_like(part, device=b) for part in row]
    for source, target in zip(row, there, strict=True):
        target.copy_(source)
    row[1].zero_()
    return digest([x[:10], y, back, small, *there])


WORKLOADS: dict[str, Callable[[list[torch.device]], str]] = {
    "training step": training,
    "upload": upload,
    "download": download,
    "copy": copy,
}
COMPUTES = {"copy": 2}  # one, where it is not said
