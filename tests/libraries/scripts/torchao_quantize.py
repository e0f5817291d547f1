"""Weights quantized to int8, with and without quantized activations, on the device where the model lives."""

import small
import torch
from torch import nn
from torchao.quantization import Int8DynamicActivationInt8WeightConfig, Int8WeightOnlyConfig, quantize_

device = small.device()
values, places = [], []
for config in (Int8WeightOnlyConfig(), Int8DynamicActivationInt8WeightConfig()):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 4)).to(device)
    x = torch.rand(2, 64).to(device)
    quantize_(model, config)
    values.append(model(x).tolist())
    places.append(model[0].weight.device.type)
small.report(values=values, places=places)
