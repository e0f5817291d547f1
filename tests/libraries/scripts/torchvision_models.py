"""Training a ResNet, four other models, transforms, and the operators that are torchvision's own."""

import small
import torch
import torchvision
from skytorch.client import Compute
from torch import nn
from torchvision.transforms import v2

# torchvision::nms and its like run on a server that imports the module which registers them.
compute = (
    None if small.on_cpu() else Compute("vision", provider="local", args=["--import", "torchvision"]).__enter__()
)
device = small.device() if compute is None else compute.device()

values, models = [], torchvision.models
model = models.resnet18(num_classes=4).to(device)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
pictures, labels = torch.rand(2, 3, 64, 64).to(device), torch.tensor([0, 1], device=device)
for _ in range(2):
    loss = nn.functional.cross_entropy(model(pictures), labels)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    values.append(loss.item())
for other in (
    models.VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=4),
    models.mobilenet_v3_small(num_classes=4),
    models.squeezenet1_1(num_classes=4),
    models.shufflenet_v2_x0_5(num_classes=4),
):
    values.append(other.to(device).eval()(pictures[..., :32, :32]).pow(2).sum().item())
change = v2.Compose([v2.RandomHorizontalFlip(1.0), v2.Resize(16), v2.Normalize([0.5] * 3, [0.5] * 3)])
values.append(change(pictures).sum().item())
boxes = torch.tensor([[0.0, 0, 10, 10], [1, 1, 10, 10], [20, 20, 30, 30]]).to(device)
scores, ops = torch.tensor([0.9, 0.8, 0.7]).to(device), torchvision.ops
values += [
    ops.box_iou(boxes, boxes).sum().item(),
    ops.nms(boxes, scores, 0.5).tolist(),
    ops.roi_align(pictures[:1], [boxes], 2).sum().item(),
]
places = [next(model.parameters()).device.type]
del model, optimizer, pictures, labels, boxes, scores, loss, other
if compute is not None:
    compute.__exit__(None, None, None)
small.report(values=values, places=places)
