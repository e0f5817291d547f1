"""Modules: layers, tied weights, state dicts, save and load, deepcopy, optimizers and schedulers."""

from __future__ import annotations

import copy
import io

import pytest
import torch
from torch import nn

LAYERS = {
    "linear": (lambda: nn.Linear(6, 4), (3, 6)),
    "bilinear": (lambda: nn.Bilinear(6, 6, 2), None),
    "conv1d": (lambda: nn.Conv1d(3, 4, 3, padding=1), (2, 3, 8)),
    "conv2d": (lambda: nn.Conv2d(3, 4, 3, stride=2), (2, 3, 9, 9)),
    "conv2d_groups_dilated": (lambda: nn.Conv2d(4, 8, 3, groups=2, dilation=2, padding="same"), (2, 4, 9, 9)),
    "conv2d_no_bias": (lambda: nn.Conv2d(3, 4, 1, bias=False), (2, 3, 5, 5)),
    "conv2d_reflect": (lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), (2, 3, 5, 5)),
    "conv3d": (lambda: nn.Conv3d(2, 3, 2), (1, 2, 4, 4, 4)),
    "conv_transpose2d": (lambda: nn.ConvTranspose2d(3, 2, 3, stride=2, output_padding=1), (2, 3, 5, 5)),
    "batch_norm1d": (lambda: nn.BatchNorm1d(5), (4, 5)),
    "batch_norm2d": (lambda: nn.BatchNorm2d(3), (4, 3, 5, 5)),
    "batch_norm_eval": (lambda: nn.BatchNorm2d(3).eval(), (4, 3, 5, 5)),
    "batch_norm_no_stats": (lambda: nn.BatchNorm2d(3, track_running_stats=False), (4, 3, 5, 5)),
    "layer_norm": (lambda: nn.LayerNorm([4, 6]), (3, 4, 6)),
    "rms_norm": (lambda: nn.RMSNorm(6), (3, 6)),
    "group_norm": (lambda: nn.GroupNorm(2, 4), (3, 4, 5)),
    "instance_norm": (lambda: nn.InstanceNorm2d(3, affine=True), (2, 3, 5, 5)),
    "local_response_norm": (lambda: nn.LocalResponseNorm(2), (2, 4, 5, 5)),
    "max_pool": (lambda: nn.MaxPool2d(2), (2, 3, 6, 6)),
    "avg_pool": (lambda: nn.AvgPool2d(3, stride=1, padding=1), (2, 3, 6, 6)),
    "adaptive_avg_pool": (lambda: nn.AdaptiveAvgPool2d((2, 3)), (2, 3, 7, 7)),
    "adaptive_max_pool": (lambda: nn.AdaptiveMaxPool1d(3), (2, 3, 7)),
    "upsample": (lambda: nn.Upsample(scale_factor=2, mode="bilinear"), (1, 2, 4, 4)),
    "pixel_shuffle": (lambda: nn.PixelShuffle(2), (1, 8, 3, 3)),
    "prelu": (lambda: nn.PReLU(3), (2, 3, 4)),
    "gelu": (lambda: nn.GELU(approximate="tanh"), (3, 4)),
    "glu": (lambda: nn.GLU(), (3, 4)),
    "softmax": (lambda: nn.Softmax(dim=-1), (3, 4)),
    "log_softmax": (lambda: nn.LogSoftmax(dim=0), (3, 4)),
    "silu_mish_elu": (lambda: nn.Sequential(nn.SiLU(), nn.Mish(), nn.ELU(), nn.Softplus(), nn.Hardswish()), (3, 4)),
    "dropout": (lambda: nn.Dropout(0.3), (8, 9)),
    "encoder_layer": (lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (2, 5, 8)),
    "decoder_layer": (lambda: nn.TransformerDecoderLayer(8, 2, 16, batch_first=True), None),
    "weight_norm": (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(6, 4)), (3, 6)),
    "spectral_norm": (lambda: nn.utils.parametrizations.spectral_norm(nn.Linear(6, 4)), (3, 6)),
}
TWO_INPUTS = {"bilinear": (3, 6), "decoder_layer": (2, 5, 8)}


@pytest.mark.parametrize("name", LAYERS)
def test_layer_forward_and_backward(same_on_both, name):
    make, shape = LAYERS[name]

    def program(device):
        layer = make().to(device)
        shapes = [shape] if shape else [TWO_INPUTS[name]] * 2
        inputs = [torch.randn(s).to(device).requires_grad_() for s in shapes]
        torch.manual_seed(3)
        out = layer(*inputs)
        (out * torch.linspace(0, 1, out.numel(), device=device).reshape(out.shape)).sum().backward()
        return [out, inputs, dict(layer.named_parameters()), dict(layer.named_buffers())]

    same_on_both(program, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True, "batch_first": True}], ids=str)
def test_recurrent(same_on_both, kind, options):
    def program(device):
        net = kind(5, 4, **options).to(device)
        x = torch.randn(3, 6, 5).to(device).requires_grad_()
        out, state = net(x)
        out.square().sum().backward()
        return [out, state, x, list(net.parameters())]

    same_on_both(program, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cell", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_recurrent_cell(same_on_both, cell):
    def program(device):
        net = cell(5, 4).to(device)
        state = net(torch.randn(3, 5).to(device))
        return [state, net(torch.randn(3, 5).to(device), state)]

    same_on_both(program, rtol=1e-4, atol=1e-5)


def test_packed_sequences(same_on_both):
    def program(device):
        net = nn.GRU(4, 3, batch_first=True).to(device)
        x = torch.randn(3, 5, 4).to(device)
        packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([5, 3, 2]), batch_first=True)
        out, lengths = nn.utils.rnn.pad_packed_sequence(net(packed)[0], batch_first=True)
        return [out, lengths]

    same_on_both(program, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("masked", [False, True, "causal"])
def test_attention(same_on_both, masked):
    def program(device):
        q, k, v = (torch.randn(2, 3, 6, 8).to(device).requires_grad_() for _ in range(3))
        mask = torch.ones(6, 6, dtype=torch.bool, device=device).tril() if masked is True else None
        out = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=masked == "causal")
        out.square().sum().backward()
        return [out, q, k, v]

    same_on_both(program, rtol=1e-4, atol=1e-5, ignore=("strides",))


def test_attention_grouped_and_one_query(same_on_both):
    """What a decoder does at every new token."""

    def program(device):
        cache_k, cache_v = torch.randn(2, 1, 2, 4, 8).to(device)
        outs = []
        for _ in range(5):
            new_k, new_v = torch.randn(2, 1, 2, 1, 8).to(device)
            cache_k, cache_v = torch.cat((cache_k, new_k), dim=2), torch.cat((cache_v, new_v), dim=2)
            q = torch.randn(1, 4, 1, 8).to(device)
            outs.append(nn.functional.scaled_dot_product_attention(q, cache_k, cache_v, enable_gqa=True))
        return outs

    same_on_both(program, rtol=1e-4, atol=1e-5, ignore=("strides",))


def test_multi_head_attention(same_on_both):
    def program(device):
        layer = nn.MultiheadAttention(8, 2, batch_first=True).to(device)
        x = torch.randn(2, 5, 8).to(device)
        padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2], device=device)
        out, weights = layer(x, x, x, key_padding_mask=padding)
        with torch.no_grad():
            fast, _ = layer.eval()(x, x, x, need_weights=False)
        return [out, weights, fast]

    same_on_both(program, rtol=1e-4, atol=1e-5, ignore=("strides",))


def test_embeddings(same_on_both):
    def program(device):
        words, bag = nn.Embedding(10, 4, padding_idx=0).to(device), nn.EmbeddingBag(10, 4, mode="mean").to(device)
        ids = torch.tensor([[1, 2, 0], [4, 2, 9]], device=device)
        out = words(ids).sum() + bag(ids).square().sum()
        out.backward()
        return [words(ids), bag(ids), words.weight, bag.weight]

    same_on_both(program)


LOSSES = (
    nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss, nn.BCEWithLogitsLoss, nn.KLDivLoss, nn.PoissonNLLLoss,
    nn.SoftMarginLoss, nn.HingeEmbeddingLoss,
)  # fmt: skip


@pytest.mark.parametrize("loss", LOSSES, ids=lambda c: c.__name__)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_loss(same_on_both, loss, reduction):
    def program(device):
        guess, truth = torch.randn(4, 5).to(device).requires_grad_(), torch.rand(4, 5).to(device)
        value = loss(reduction=reduction)(guess, truth)
        value.sum().backward()
        return [value, guess]

    same_on_both(program)


def test_classification_losses(same_on_both):
    def program(device):
        logits = torch.randn(6, 5).to(device).requires_grad_()
        target = torch.tensor([0, 1, 2, 3, 4, -100], device=device)
        weight = torch.rand(5).to(device)
        values = [
            nn.functional.cross_entropy(logits, target, weight=weight, label_smoothing=0.1),
            nn.functional.cross_entropy(logits, logits.detach().softmax(1)),
            nn.functional.nll_loss(logits.log_softmax(1), target, reduction="sum"),
            nn.functional.multi_margin_loss(logits[:5], target[:5]),
            nn.functional.triplet_margin_loss(logits[:2], logits[2:4], logits[4:]),
            nn.functional.ctc_loss(
                logits.unsqueeze(1).log_softmax(2),
                torch.tensor([[1, 2]], device=device),
                torch.tensor([6]),
                torch.tensor([2]),
            ),
        ]
        sum(values).backward()
        return [values, logits]

    same_on_both(program, rtol=1e-4, atol=1e-5)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(self.embed(ids).tanh())


def test_tied_weights_stay_tied(device):
    model = Tied()
    kept = model.embed.weight
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.to(device)
    assert model.head.weight is model.embed.weight is kept
    assert len(list(model.parameters())) == 1
    assert optimizer.param_groups[0]["params"][0] is kept
    ids = torch.tensor([1, 2, 3], device=device)
    before = kept.detach().cpu().clone()
    model(ids).square().sum().backward()
    optimizer.step()
    assert kept.grad.device == device
    assert not torch.equal(kept.detach().cpu(), before)
    model.to("cpu")
    assert model.head.weight is model.embed.weight is kept
    assert kept.grad.device.type == "cpu"


def test_tied_weights_train_as_locally(same_on_both):
    def program(device):
        model = Tied().to(device)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        ids = torch.tensor([1, 2, 3], device=device)
        for _ in range(3):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(ids), ids).backward()
            optimizer.step()
        return list(model.parameters())

    same_on_both(program, rtol=1e-4, atol=1e-5)


def test_state_dict_between_devices(device):
    torch.manual_seed(0)
    one, other = (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)) for _ in range(2))
    one.to(device)
    state = one.state_dict()
    assert all(value.device == device for value in state.values())
    other.load_state_dict(state)
    for name, value in other.state_dict().items():
        assert value.device.type == "cpu"
        assert torch.equal(value, state[name].cpu())
    one.load_state_dict({name: value + 1 for name, value in other.state_dict().items()})
    assert torch.equal(one.state_dict()["0.weight"].cpu(), other[0].weight + 1)


@pytest.mark.parametrize("weights_only", [True, False])
def test_save_and_load(device, weights_only):
    model = Tied().to(device)
    view = model.embed.weight.detach()[1:, ::2]
    file = io.BytesIO()
    torch.save({"state": model.state_dict(), "view": view, "step": 3}, file)
    file.seek(0)
    there = torch.load(file, weights_only=weights_only)
    file.seek(0)
    here = torch.load(file, map_location="cpu", weights_only=weights_only)
    file.seek(0)
    moved = torch.load(file, map_location=device, weights_only=weights_only)
    for loaded, where in ((there, device), (here, torch.device("cpu")), (moved, device)):
        assert loaded["step"] == 3
        assert loaded["view"].device == where
        assert torch.equal(loaded["view"].cpu(), view.cpu())
        assert loaded["view"].stride() == view.stride()
        weight = loaded["state"]["embed.weight"]
        assert torch.equal(weight.cpu(), model.embed.weight.detach().cpu())
        assert weight.untyped_storage().data_ptr() == loaded["state"]["head.weight"].untyped_storage().data_ptr()


def test_save_optimizer(device):
    model = nn.Linear(3, 2).to(device)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(2, 3, device=device)).sum().backward()
    optimizer.step()
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    again = torch.optim.AdamW(model.parameters())
    again.load_state_dict(torch.load(file))
    for one, other in zip(optimizer.state.values(), again.state.values(), strict=True):
        assert torch.equal(one["exp_avg"].cpu(), other["exp_avg"].cpu())
        assert other["exp_avg"].device == device


def test_deepcopy(device):
    model = Tied().to(device)
    twin = copy.deepcopy(model)
    assert twin.head.weight is twin.embed.weight
    assert twin.embed.weight is not model.embed.weight
    assert twin.embed.weight.device == device
    with torch.no_grad():
        model.embed.weight.zero_()
    assert twin.embed.weight.abs().sum().item() > 0
    base = torch.arange(6.0, device=device)
    copied, view = copy.deepcopy([base, base[2:]])
    copied.zero_()
    assert view.cpu().tolist() == [0] * 4  # what shared a storage shares one still
    assert base.sum().item() == 15


OPTIMIZERS = {
    "sgd": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    "adam": (torch.optim.Adam, {"amsgrad": True}),
    "adamw": (torch.optim.AdamW, {}),
    "rmsprop": (torch.optim.RMSprop, {"momentum": 0.5, "centered": True}),
    "adagrad": (torch.optim.Adagrad, {}),
    "adadelta": (torch.optim.Adadelta, {}),
    "adamax": (torch.optim.Adamax, {}),
    "nadam": (torch.optim.NAdam, {}),
    "radam": (torch.optim.RAdam, {}),
    "asgd": (torch.optim.ASGD, {}),
    "rprop": (torch.optim.Rprop, {}),
}
FUSED = ("sgd", "adam", "adamw", "adagrad")
WAYS = [(name, way) for name in OPTIMIZERS for way in ("default", "foreach", "loop", "fused")]


@pytest.mark.parametrize(("name", "way"), [(n, w) for n, w in WAYS if w != "fused" or n in FUSED])
def test_optimizer(same_on_both, name, way):
    kind, options = OPTIMIZERS[name]
    chosen = {"default": {}, "foreach": {"foreach": True}, "loop": {"foreach": False}, "fused": {"fused": True}}[way]

    def program(device):
        net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)).to(device)
        x, y = torch.randn(8, 4).to(device), torch.randn(8, 2).to(device)
        optimizer = kind(net.parameters(), lr=0.05, **options, **chosen)
        for _ in range(4):
            optimizer.zero_grad()
            nn.functional.mse_loss(net(x), y).backward()
            optimizer.step()
        return list(net.parameters())

    same_on_both(program, rtol=1e-4, atol=1e-5)


def test_lbfgs(same_on_both):
    def program(device):
        x = torch.full((3,), 4.0, device=device, requires_grad=True)
        optimizer = torch.optim.LBFGS([x], max_iter=8)

        def closure():
            optimizer.zero_grad()
            loss = (x - torch.arange(3.0, device=device)).square().sum()
            loss.backward()
            return loss

        optimizer.step(closure)
        return x

    same_on_both(program, rtol=1e-4, atol=1e-5)


def test_schedulers_clipping_and_averaging(same_on_both):
    def program(device):
        net = nn.Linear(4, 3).to(device)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
        warm = torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, total_iters=3)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 5)
        scheduler = torch.optim.lr_scheduler.SequentialLR(optimizer, [warm, cosine], [3])
        average = torch.optim.swa_utils.AveragedModel(
            net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9)
        )
        norms = []
        for _ in range(6):
            optimizer.zero_grad()
            net(torch.randn(5, 4).to(device)).square().sum().backward()
            norms.append(nn.utils.clip_grad_norm_(net.parameters(), 1.0))
            nn.utils.clip_grad_value_(net.parameters(), 0.2)
            optimizer.step()
            scheduler.step()
            average.update_parameters(net)
        return [list(net.parameters()), list(average.parameters()), norms, scheduler.get_last_lr()]

    same_on_both(program, rtol=1e-4, atol=1e-5)


def test_data_loader(same_on_both):
    def program(device):
        data = torch.utils.data.TensorDataset(torch.arange(20.0).reshape(10, 2), torch.arange(10))
        loader = torch.utils.data.DataLoader(data, batch_size=4, shuffle=True, pin_memory=device.type != "cpu")
        return [[part.to(device, non_blocking=True) for part in batch] for batch in loader]

    same_on_both(program)


def test_data_loader_with_workers(device):
    """Workers are forked; they work on the host's tensors and must not disturb the session."""
    data = torch.utils.data.TensorDataset(torch.arange(16.0))
    torch.zeros(1, device=device)
    loader = torch.utils.data.DataLoader(data, batch_size=4, num_workers=2, pin_memory=device.type != "cpu")
    assert sum(batch.to(device).sum().item() for (batch,) in loader) == sum(range(16))


def test_functional_call_and_buffers(same_on_both):
    def program(device):
        net = nn.BatchNorm1d(3).to(device)
        changed = {name: value + 1 for name, value in net.state_dict().items()}
        return [torch.func.functional_call(net, changed, torch.randn(4, 3).to(device)), net.num_batches_tracked]

    same_on_both(program)


def test_half_and_double_modules(same_on_both):
    def program(device):
        net = nn.Sequential(nn.Linear(4, 4), nn.ReLU()).to(device)
        x = torch.randn(2, 4).to(device)
        return [net.double()(x.double()), net.bfloat16()(x.bfloat16()), net.to(torch.float32)(x)]

    same_on_both(program, rtol=1e-2, atol=1e-2)
