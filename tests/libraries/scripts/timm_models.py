"""A ViT, a ResNet and a MobileNet by timm, one of its optimizers, and its moving average of weights."""

import small
import timm
import torch
from timm.optim import create_optimizer_v2
from timm.utils import ModelEmaV3

device = small.device()
values = []
pictures = torch.rand(2, 3, 32, 32).to(device)
for name, options in {
    "vit_tiny_patch16_224": {"img_size": 32, "patch_size": 8},
    "resnet18": {},
    "mobilenetv3_small_050": {},
}.items():
    model = timm.create_model(name, pretrained=False, num_classes=3, **options).to(device)
    loss = model(pictures).pow(2).mean()
    loss.backward()
    values.append(loss.item())
optimizer, average = create_optimizer_v2(model, opt="lamb", lr=1e-2), ModelEmaV3(model, device=device)
optimizer.step()
average.update(model)
values.append(sum(p.abs().sum() for p in average.parameters()).item())
small.report(values=values, places=[next(average.parameters()).device.type])
