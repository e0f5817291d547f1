"""Train a small CNN on scikit-learn's handwritten digits, on a remote device, and again on the local CPU beside it.

Everything inside `train` is ordinary PyTorch: a DataLoader, AdamW, a learning-rate schedule. The seeds are fixed, so
both runs see the same batches and start from the same weights. `--device cpu` never imports SkyTorch.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

HELD_OUT = 360  # of 1,797 images


@dataclass
class Result:
    accuracy: float
    loss: float
    steps: int
    seconds: float

    @property
    def steps_per_s(self) -> float:
        return self.steps / self.seconds


def digits() -> tuple[TensorDataset, TensorDataset]:
    """(training set, held-out set), shuffled by a fixed seed."""
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1) / 16.0
    labels = torch.tensor(data.target, dtype=torch.int64)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    train, held_out = order[HELD_OUT:], order[:HELD_OUT]
    return TensorDataset(images[train], labels[train]), TensorDataset(images[held_out], labels[held_out])


class DigitsNet(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.25),
            nn.Linear(64 * 4 * 4, 128),
            nn.ReLU(),
            nn.Linear(128, 10),
        )


def train(device: torch.device, epochs: int, batch_size: int, label: str, console: Console) -> Result:
    torch.manual_seed(1)
    train_set, held_out = digits()
    loader = DataLoader(train_set, batch_size=batch_size, shuffle=True, drop_last=True)
    model = DigitsNet().to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-2)
    steps = epochs * len(loader)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-3, total_steps=steps)
    loss_fn = nn.CrossEntropyLoss(label_smoothing=0.05)

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task(label, total=steps, loss=float("nan"))
        started = time.perf_counter()
        last = float("nan")
        for _ in range(epochs):
            model.train()
            for images, labels in loader:
                images, labels = images.to(device), labels.to(device)
                loss = loss_fn(model(images), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                scheduler.step()
                progress.advance(bar)
            last = loss.item()  # the only wait of an epoch
            progress.update(bar, loss=last)
        seconds = time.perf_counter() - started

    model.eval()
    with torch.no_grad():
        images, labels = (part.to(device) for part in held_out.tensors)
        accuracy = (model(images).argmax(dim=1) == labels).float().mean().item()
    return Result(accuracy, last, steps, seconds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("sky", "cpu"), default="sky", help="cpu: plain PyTorch, no SkyTorch")
    parser.add_argument("--provider", default="local", help="where the server runs: local, address or kubernetes")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=64)
    args = parser.parse_args()
    console = Console()

    if args.device == "cpu":
        local = train(torch.device("cpu"), args.epochs, args.batch_size, "cpu", console)
        console.print(f"cpu: held-out accuracy {local.accuracy:.2%}, {local.steps_per_s:.1f} steps/s")
        return 0 if local.accuracy >= 0.97 else 1

    from skytorch.client import Compute

    with Compute("digits", provider=args.provider) as node:
        remote = train(node.device(), args.epochs, args.batch_size, "sky", console)
        traffic = node.stats()
    local = train(torch.device("cpu"), args.epochs, args.batch_size, "cpu", console)
    sent = traffic["op_bytes_sent"] + traffic["lane_bytes_sent"]
    console.print(
        f"sky: held-out accuracy {remote.accuracy:.2%}, {remote.steps_per_s:.1f} steps/s, {traffic['ops']:,} ops, "
        f"{sent:,} bytes sent, {traffic['bytes_received']:,} received | "
        f"cpu: {local.accuracy:.2%}, {local.steps_per_s:.1f} steps/s | "
        f"sky/cpu {remote.steps_per_s / local.steps_per_s:.2f}x",
        soft_wrap=True,
    )
    return 0 if remote.accuracy >= 0.97 else 1


if __name__ == "__main__":
    sys.exit(main())
