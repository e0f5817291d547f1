"""Trainer.fit with validation and a checkpoint, and the same by Fabric."""

import lightning
import small
import torch
from skytorch.integrations.lightning import on, on_fabric
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Net(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        self.losses: list[torch.Tensor] = []

    def training_step(self, batch, index):
        loss = nn.functional.cross_entropy(self.net(batch[0]), batch[1])
        self.log("loss", loss)
        self.losses.append(loss.detach())
        return loss

    def validation_step(self, batch, index):
        self.log("checked", nn.functional.cross_entropy(self.net(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-2)


def where(precision: str, ours=on):
    here = {"accelerator": "cpu", "devices": 1, "precision": precision}
    return here if small.on_cpu() else ours(small.device(), precision)


loader = DataLoader(TensorDataset(torch.randn(32, 4), torch.randint(0, 2, (32,))), batch_size=8)
found, places = {"32-true": [], "bf16-mixed": []}, []
for precision in found:
    torch.manual_seed(0)
    net = Net()
    trainer = lightning.Trainer(
        max_epochs=2,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **where(precision),
    )
    trainer.fit(net, loader, loader)
    found[precision] += [[loss.item() for loss in net.losses], trainer.callback_metrics["checked"].item()]
    places.append(trainer.strategy.root_device.type)

torch.manual_seed(0)
fabric = lightning.Fabric(**where("32-true", on_fabric))
plain = nn.Linear(4, 2)
model, optimizer = fabric.setup(plain, torch.optim.SGD(plain.parameters(), lr=0.1))
loss = model(fabric.to_device(torch.ones(1, 4))).float().sum()
fabric.backward(loss)
found["32-true"].append(loss.item())
small.report(values=found["32-true"], rounded=found["bf16-mixed"], places=[*places, fabric.device.type])
