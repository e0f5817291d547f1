"""The loop of accelerate's README: prepare, backward, clipping, accumulation, gathered metrics, saved state."""

import small
import torch
from accelerate import Accelerator, cpu_offload
from skytorch.integrations import accelerate
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

if not small.on_cpu():
    accelerate.use(small.device())

worker = Accelerator(cpu=small.on_cpu(), mixed_precision="bf16", gradient_accumulation_steps=2)
model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
data = DataLoader(TensorDataset(torch.randn(32, 4), torch.randint(0, 2, (32,))), batch_size=4)
model, optimizer, data = worker.prepare(model, optimizer, data)
losses = []
for x, y in data:
    with worker.accumulate(model):
        loss = nn.functional.cross_entropy(model(x), y)
        worker.backward(loss)
        if worker.sync_gradients:
            worker.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    losses.append(worker.gather_for_metrics(loss.detach()).item())
worker.save_state("state")
worker.load_state("state")
offloaded = cpu_offload(nn.Linear(4, 2), execution_device=small.device())
losses.append(offloaded(torch.ones(1, 4)).sum().item())
small.report(values=losses, places=[worker.device.type, next(model.parameters()).device.type])
