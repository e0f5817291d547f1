"""Small programs whose every operator the survey asks the oracle about: what op_db does not put together.

Each function runs one forward and backward; `PROGRAMS` lists them.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn


def train(model: nn.Module, *inputs: torch.Tensor, optimizer: str = "AdamW", **options: object) -> None:
    """Two steps of training with the sum of the outputs as loss."""
    steps = getattr(torch.optim, optimizer)(model.parameters(), lr=1e-3, **options)
    for _ in range(2):
        result = model(*inputs)
        result = result[0] if isinstance(result, tuple) else result
        result.float().pow(2).mean().backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        steps.step()
        steps.zero_grad()


def transformer() -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    train(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), torch.randn(2, 5, 16), foreach=True)


def transformer_bfloat16() -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=True, activation="gelu")
    model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).to(torch.bfloat16)
    train(model, torch.randn(2, 5, 16, dtype=torch.bfloat16), foreach=False)


def decoder_eval() -> None:
    layer = nn.TransformerDecoderLayer(16, 2, 32, batch_first=True)
    model = nn.TransformerDecoder(layer, 1).eval()
    with torch.no_grad():
        model(torch.randn(2, 5, 16), torch.randn(2, 7, 16))


def attention() -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        for heads in (4, 2):
            q = torch.randn(2, 6, 4, 8, dtype=dtype, requires_grad=True)
            k, v = (torch.randn(2, 9, heads, 8, dtype=dtype, requires_grad=True) for _ in range(2))
            mask = torch.zeros(6, 9, dtype=dtype)
            for options in ({}, {"is_causal": True}, {"attn_mask": mask}, {"dropout_p": 0.5}):
                a, b, c = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
                F.scaled_dot_product_attention(a, b, c, enable_gqa=heads != 4, **options).sum().backward()


def resnet() -> None:
    for format in (torch.contiguous_format, torch.channels_last):
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, stride=2, groups=2),
            nn.GroupNorm(4, 16),
            nn.SiLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.ConvTranspose2d(16, 4, 2, stride=2),
            nn.AvgPool2d(2),
            nn.Dropout(0.3),
            nn.Flatten(),
            nn.LazyLinear(5),
        )
        model(torch.randn(2, 3, 17, 17))
        model = model.to(memory_format=format)
        train(model, torch.randn(2, 3, 17, 17).to(memory_format=format), optimizer="SGD", momentum=0.9)
        with torch.no_grad():
            model.eval()(torch.randn(2, 3, 17, 17))


def stacks() -> None:
    """Of every memory format and dimension; a stack keeps the format of the join that it is made of."""
    last = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    last_3d = torch.randn(2, 3, 1, 4, 5).contiguous(memory_format=torch.channels_last_3d)
    thin = torch.randn(2, 3, 1).as_strided((2, 1, 3), (3, 1, 1))
    for x in (last, last_3d, last.contiguous(), last[:1].movedim(-1, 1), thin):
        for dim in range(x.dim() + 1):
            torch.stack([x, x.clone(), x], dim)
            torch.stack([x, x.contiguous()], dim)


def convolutions() -> None:
    train(nn.Conv1d(4, 6, 3, padding="same", dilation=2), torch.randn(2, 4, 9))
    train(nn.Conv3d(2, 4, 2), torch.randn(1, 2, 4, 5, 6))
    train(nn.Conv3d(2, 4, 2), torch.randn(1, 2, 4, 5, 6).to(memory_format=torch.channels_last_3d))
    train(nn.ConvTranspose1d(4, 6, 3, stride=2, output_padding=1, groups=2), torch.randn(2, 4, 9))
    train(nn.Conv2d(4, 4, 3, groups=4), torch.randn(4, 9, 9))
    train(nn.Conv2d(4, 4, 3).to(torch.bfloat16), torch.randn(1, 4, 9, 9, dtype=torch.bfloat16))
    train(nn.Conv2d(4, 4, 3).double(), torch.randn(1, 4, 9, 9, dtype=torch.float64))


def norms() -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.float64):
        for parameters in {dtype, torch.float32}:
            if parameters != dtype and dtype == torch.float64:
                continue
            x = torch.randn(3, 6, 4, 5, dtype=dtype)
            for data in (x, x.to(memory_format=torch.channels_last)):
                for model in (nn.LayerNorm(5), nn.GroupNorm(3, 6), nn.BatchNorm2d(6)):
                    model = model.to(parameters)
                    train(model, data.clone().requires_grad_(), optimizer="SGD")
                    model.eval()(data)
            train(nn.RMSNorm(5).to(dtype), x, optimizer="SGD")


def recurrent() -> None:
    for cell in (nn.LSTM, nn.GRU, nn.RNN):
        train(cell(5, 7, num_layers=2, bidirectional=True, batch_first=True), torch.randn(2, 4, 5))
        with torch.no_grad():
            cell(5, 7)(torch.randn(4, 2, 5))
    train(nn.LSTMCell(5, 7), torch.randn(3, 5))
    train(nn.GRUCell(5, 7), torch.randn(3, 5))


def embeddings() -> None:
    positions = torch.randint(0, 10, (3, 4))
    train(nn.Embedding(10, 6, padding_idx=1), positions)
    for mode in ("sum", "mean", "max"):
        train(nn.EmbeddingBag(10, 6, mode=mode), positions)


def indexing() -> None:
    x = torch.randn(4, 5, 6, 7, requires_grad=True)
    i, j, mask = torch.tensor([[0], [2]]), torch.tensor([1, 0, 3]), torch.rand(4, 5) > 0.5
    for key in (
        (i,),
        (slice(None), i),
        (i, j),
        (slice(None), i, slice(None), j),
        (i, slice(None), j),
        (Ellipsis, j),
        (None, i, 2),
        (mask,),
        (slice(1, None, 2), j),
    ):
        x[key].sum().backward()
    y = x.detach().clone().transpose(0, 2)
    for key in ((i,), (i, j), (slice(None), i, slice(None), j), (Ellipsis, j)):
        y[key]
        y[key] = 1.0
        y[key] += 2.0
    y[y > 0] = 0.0
    torch.where(y > 0, y, 0.0)
    torch.gather(x, 0, torch.zeros(2, 5, 6, 7, dtype=torch.int64)).sum().backward()
    x.detach().scatter_add(0, torch.zeros(2, 5, 6, 7, dtype=torch.int64), torch.ones(2, 5, 6, 7))


def losses() -> None:
    for dtype in (torch.float32, torch.float64):
        x = torch.randn(6, 4, dtype=dtype, requires_grad=True)
        t, classes = torch.rand(6, 4, dtype=dtype), torch.randint(0, 4, (6,))
        for reduction in ("none", "sum", "mean"):
            for loss in (
                F.mse_loss,
                F.l1_loss,
                F.smooth_l1_loss,
                F.huber_loss,
                F.kl_div,
                F.binary_cross_entropy_with_logits,
                F.soft_margin_loss,
            ):
                loss(x, t, reduction=reduction).sum().backward()
            F.binary_cross_entropy(x.sigmoid(), t, reduction=reduction).sum().backward()
            F.cross_entropy(x, classes, reduction=reduction, label_smoothing=0.1).sum().backward()
            image, labels = x.t().reshape(1, 4, 2, 3), classes.view(1, 2, 3)
            F.cross_entropy(image, labels, reduction=reduction).sum().backward()


def optimizers() -> None:
    for name in (
        "SGD",
        "Adam",
        "AdamW",
        "Adagrad",
        "RMSprop",
        "Adadelta",
        "Adamax",
        "NAdam",
        "RAdam",
        "ASGD",
        "Rprop",
    ):
        for foreach in (True, False):
            train(
                nn.Sequential(nn.Linear(3, 4), nn.PReLU(), nn.Linear(4, 1)),
                torch.randn(2, 3),
                optimizer=name,
                foreach=foreach,
            )
    for name in ("SGD", "Adam", "AdamW", "Adagrad"):
        train(nn.Linear(3, 4), torch.randn(2, 3), optimizer=name, fused=True)


def in_place_and_out() -> None:
    x, y = torch.randn(3, 4), torch.randn(3, 4)
    for name in ("add_", "sub_", "mul_", "div_", "copy_", "lerp_", "clamp_", "addcmul_", "pow_"):
        extra = {"lerp_": (0.5,), "addcmul_": (x.clone(),)}.get(name, ())
        getattr(x, name)(y, *extra)
    for name in ("relu_", "sigmoid_", "zero_", "exp_", "neg_", "abs_", "logical_not_", "uniform_", "normal_", "t_"):
        getattr(x, name)()
    x = torch.randn(3, 4)
    for out in (torch.empty(0), torch.empty(3, 4), torch.empty(4, 3).t(), torch.empty(3, 4, dtype=torch.float64)):
        torch.add(x, y, out=out)
        torch.exp(x, out=out)
    for out in (torch.empty(0), torch.empty(3, 3)):
        torch.mm(x, y.t(), out=out)
        torch.cat([x, x], out=torch.empty(0))
    torch.sort(x, out=(torch.empty(0), torch.empty(0, dtype=torch.int64)))
    torch.sum(x, 1, out=torch.empty(0))
    torch.arange(5, out=torch.empty(0))
    torch.arange(0, 5, 2, out=torch.empty(0))
    torch.max(x, 1, out=(torch.empty(0), torch.empty(0, dtype=torch.int64)))


def factories() -> None:
    for dtype in (None, torch.float16, torch.int64, torch.int32, torch.float64):
        torch.arange(7, dtype=dtype)
        torch.arange(1, 8, 3, dtype=dtype)
        torch.arange(1.5, 8, 1.5, dtype=dtype)
        torch.arange(8, 1, -2, dtype=dtype)
        torch.ones(2, 3, dtype=dtype), torch.zeros(2, dtype=dtype), torch.full((2,), 3, dtype=dtype)
        torch.linspace(0, 1, 5, dtype=dtype), torch.eye(3, dtype=dtype), torch.eye(3, 2, dtype=dtype)
        torch.empty(2, 3, 4, 5, dtype=dtype, memory_format=torch.channels_last)
        torch.empty_like(torch.empty(2, 3).t(), dtype=dtype)
    torch.full((2,), True), torch.full((2,), 1.0), torch.full((2,), 1j), torch.scalar_tensor(3)
    torch.tril_indices(3, 4, 1), torch.triu_indices(4, 3, -1), torch.randperm(5), torch.randint(3, (2, 2))
    torch.rand(2, generator=torch.Generator()), torch.randn(2, generator=torch.Generator())
    torch.arange(3), torch.arange(0), torch.arange(2, 2), torch.arange(0, 1, 0.1)


PROGRAMS: list[Callable[[], None]] = [
    transformer, transformer_bfloat16, decoder_eval, attention, resnet, stacks, convolutions, norms, recurrent,
    embeddings, indexing, losses, optimizers, in_place_and_out, factories,
]  # fmt: skip
