"""rearrange, reduce, repeat, einsum, pack, and the layers."""

import small
import torch
from einops import einsum, pack, rearrange, reduce, repeat, unpack
from einops.layers.torch import Rearrange, Reduce

device = small.device()
x = torch.rand(2, 3, 4).to(device)
packed, shapes = pack([x, x[..., 0]], "b c *")
net = torch.nn.Sequential(Rearrange("a b c -> a (b c)"), torch.nn.Linear(12, 4), Reduce("a b -> b", "mean")).to(
    device
)
values = [
    rearrange(x, "a b c -> (a c) b").tolist(),
    reduce(x, "a b c -> a c", "max").tolist(),
    repeat(x, "a b c -> a b c k", k=2).sum().item(),
    einsum(x, x, "a b c, a b d -> a c d").tolist(),
    [part.sum().item() for part in unpack(packed, shapes, "b c *")],
    net(x).tolist(),
]
small.report(values=values, places=[packed.device.type])
