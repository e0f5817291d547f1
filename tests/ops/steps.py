"""The kinds of steps of a random program. Each takes what it needs from its lane and returns a new tensor, a value
that the program sees, or nothing.

Nothing here fails because of values (an index that is out of range, a singular matrix): such errors come at the next
wait by design, and not at their line. What shapes and dtypes forbid is welcome: it must be forbidden alike.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.int32, torch.uint8,
          torch.bool, torch.complex64)  # fmt: skip


class Skipped(Exception):
    """The pool has nothing that the step could work on."""


class Lane:
    """The tensors of one thread, by name, and the step's random choices."""

    def __init__(self, device: torch.device, generator: torch.Generator | None) -> None:
        self.device = device
        self.generator = generator
        self.rng = random.Random(0)
        self._picked: list[str] = []
        self._made = 0
        start = (
            torch.arange(24.0).reshape(4, 6).div(10),
            torch.linspace(-1, 1, 24).reshape(4, 6),
            torch.eye(6),
            torch.arange(12).reshape(3, 4),
        )
        self.pool: list[tuple[str, torch.Tensor]] = []
        for tensor in start:
            self.keep(tensor.to(device, copy=True), 100, 100)  # none is a view

    def begin(self, rng: random.Random) -> None:
        self.rng = rng
        self._picked = []

    def picked(self) -> str:
        return " ".join(self._picked)

    def keep(self, tensor: torch.Tensor, most_elements: int, most_tensors: int) -> str:
        name = f"t{self._made}"
        self._made += 1
        if 0 < tensor.numel() <= most_elements and tensor.dim() <= 6:
            self.pool.append((name, tensor))
        while len(self.pool) > most_tensors:
            del self.pool[self.rng.randrange(len(self.pool) - 1)]
        return name

    def pick(self, wanted: Callable[[torch.Tensor], bool] = lambda t: True) -> torch.Tensor:
        found = [(name, t) for name, t in self.pool if wanted(t)]
        if not found:
            raise Skipped
        name, tensor = found[self.rng.randrange(len(found))]
        self._picked.append(name)
        return tensor

    def real(self) -> torch.Tensor:
        return self.pick(lambda t: t.is_floating_point())

    def whole(self) -> torch.Tensor:
        return self.pick(lambda t: t.dtype in (torch.int64, torch.int32))

    def matrix(self) -> torch.Tensor:
        return self.pick(lambda t: t.dim() >= 2 and t.dtype in (torch.float32, torch.float64))

    def choice(self, *values: Any) -> Any:
        value = self.rng.choice(values)
        self._picked.append(str(value))
        return value

    def number(self) -> float:
        return self.choice(-2, -0.9, 0, 0.25, 0.5, 1, 3, 7.125)  # type: ignore[no-any-return]

    def number_for(self, t: torch.Tensor) -> float:
        """One that fits: a number is a value, no part of a template, and one that does not fit is refused later."""
        number = self.number()
        return abs(number) if t.dtype == torch.uint8 else number

    def dim(self, t: torch.Tensor) -> int:
        return self.choice(*range(-t.dim(), t.dim())) if t.dim() else 0

    def position(self, length: int) -> int:
        return self.choice(*range(length)) if length else 0

    def rows(self, length: int, count: int) -> torch.Tensor:
        return torch.tensor([self.rng.randrange(length) for _ in range(count)], device=self.device)


class Kinds:
    def __init__(self) -> None:
        self._kinds: dict[str, tuple[Callable[[Lane], Any], int]] = {}

    def add(self, weight: int = 2) -> Callable[[Callable[[Lane], Any]], Callable[[Lane], Any]]:
        def register(function: Callable[[Lane], Any]) -> Callable[[Lane], Any]:
            self._kinds[function.__name__] = (function, weight)
            return function

        return register

    def weights(self) -> Iterator[tuple[str, int]]:
        return ((name, weight) for name, (_, weight) in self._kinds.items())

    def run(self, kind: str, lane: Lane) -> Any:
        return self._kinds[kind][0](lane)


KINDS = Kinds()


@KINDS.add(6)
def binary(m: Lane) -> Any:
    name = m.choice("add", "sub", "mul", "maximum", "eq", "lt", "logical_and", "fmin", "hypot", "logaddexp")
    return getattr(torch, name)(m.pick(), m.pick())


@KINDS.add(4)
def with_number(m: Lane) -> Any:
    return getattr(torch, m.choice("add", "mul", "sub", "ge", "pow", "clamp"))(m.pick(), m.number())


@KINDS.add(4)
def divided(m: Lane) -> Any:
    return getattr(torch, m.choice("div", "atan2", "copysign", "xlogy"))(m.real(), m.pick())


@KINDS.add(6)
def unary(m: Lane) -> Any:
    name = m.choice("tanh", "exp", "sin", "abs", "neg", "sigmoid", "relu", "sqrt", "erf", "floor", "sign", "isnan",
                    "log1p", "rsqrt", "round", "logical_not", "angle", "square", "expm1", "lgamma")  # fmt: skip
    return getattr(torch, name)(m.pick())


@KINDS.add(4)
def activation(m: Lane) -> Any:
    name = m.choice("gelu", "silu", "mish", "elu", "softplus", "hardswish", "leaky_relu", "logsigmoid", "hardtanh")
    return getattr(F, name)(m.real())


@KINDS.add(4)
def reduced(m: Lane) -> Any:
    t = m.pick()
    name = m.choice("sum", "mean", "prod", "amax", "var", "all", "argmax", "logsumexp", "cumsum", "softmax",
                    "log_softmax", "std", "median", "nansum", "count_nonzero", "cummax")  # fmt: skip
    if name == "median":
        t = t.contiguous()  # torch 2.15 reads outside of an expanded one
    result = getattr(torch, name)(t, m.dim(t))
    return result if isinstance(result, torch.Tensor) else result[m.choice(0, 1)]


@KINDS.add()
def reduced_whole(m: Lane) -> Any:
    return getattr(torch, m.choice("sum", "max", "norm", "any", "std", "numel", "mean"))(m.pick())


@KINDS.add()
def ordered(m: Lane) -> Any:
    t = m.pick(lambda t: not t.is_complex())
    if m.choice(True, False):
        return torch.sort(t, dim=m.dim(t), stable=True, descending=m.choice(True, False))[m.choice(0, 1)]
    return torch.topk(t, 1, dim=m.dim(t))[0]


@KINDS.add(4)
def product(m: Lane) -> Any:
    a, b = m.matrix(), m.matrix()
    return torch.matmul(a, b.mT if a.shape[-1] == b.shape[-1] else b)


@KINDS.add()
def layer(m: Lane) -> Any:
    t = m.pick(lambda t: t.is_floating_point() and t.dim() >= 1)
    name = m.choice("layer_norm", "linear", "normalize", "dropout_off", "glu", "pad", "group_norm")
    if name == "layer_norm":
        return F.layer_norm(t, t.shape[-1:])
    if name == "linear":
        return F.linear(t, torch.ones(3, t.shape[-1], dtype=t.dtype, device=m.device), None)
    if name == "normalize":
        return F.normalize(t, dim=m.dim(t))
    if name == "glu":
        return F.glu(t, m.dim(t))
    if name == "pad":
        return F.pad(t, (1, 2), value=m.number())
    if name == "group_norm":
        return F.group_norm(t, 1)
    return F.dropout(t, 0.5, training=False)


@KINDS.add()
def image(m: Lane) -> Any:
    t = m.pick(lambda t: t.dtype in (torch.float32, torch.float64) and t.dim() == 2)
    x = t[None, None]
    name = m.choice("conv2d", "max_pool2d", "avg_pool2d", "interpolate", "unfold")
    if name == "conv2d":
        return F.conv2d(x, torch.ones(2, 1, 2, 2, dtype=t.dtype, device=m.device), padding=1)
    if name == "interpolate":
        return F.interpolate(x, scale_factor=2, mode=m.choice("nearest", "bilinear"))
    return getattr(F, name)(x, 2)


@KINDS.add()
def joined(m: Lane) -> Any:
    a = m.pick()
    b = m.pick(lambda t: t.dim() == a.dim())
    return torch.cat([a, b, a], m.dim(a)) if m.choice(True, False) else torch.stack([a, a.clone()], m.dim(a))


@KINDS.add()
def selected(m: Lane) -> Any:
    return torch.where(m.pick() > 0, m.pick(), m.choice(0.5, 2))


@KINDS.add(3)
def converted(m: Lane) -> Any:
    t = m.pick(lambda t: not t.is_complex())
    dtype = m.rng.choice(DTYPES)
    if not dtype.is_floating_point and not dtype.is_complex:
        t = t.nan_to_num(0, 0, 0).clamp(0, 100)  # what else becomes of it, C++ does not say
    m.choice(dtype)
    return t.to(dtype)


@KINDS.add()
def copied(m: Lane) -> Any:
    t = m.pick()
    way = m.choice("clone", "contiguous", "detach", "host", "triu", "roll", "repeat", "flip")
    if way == "host":
        return t.detach().to("cpu", copy=True).to(m.device, copy=True)
    if way == "triu":
        return t.triu()
    if way == "roll":
        return t.roll(1, m.dim(t)) if t.dim() else t.roll(1)
    if way == "repeat":
        return t.repeat(2, *[1] * t.dim())
    if way == "flip":
        return t.flip(m.dim(t)) if t.dim() else t.flip(())
    return getattr(t, way)()


@KINDS.add(8)
def view(m: Lane) -> Any:
    t = m.pick()
    way = m.choice("transpose", "reshape", "view", "flatten", "unsqueeze", "squeeze", "step", "expand", "diagonal",
                   "narrow", "select", "movedim", "chunk", "unfold", "conj", "view_as_real", "as_strided", "bytes",
                   "imag", "unbind", "detach")  # fmt: skip
    if way == "transpose":
        return t.transpose(m.dim(t), m.dim(t))
    if way == "movedim":
        return t.movedim(m.dim(t), m.dim(t))
    if way in ("reshape", "view"):
        return getattr(t, way)(*m.choice((-1, 2), (2, -1), (-1,), (3, -1, 2)))
    if way == "step":
        return t[..., :: m.choice(1, 2, 3)]
    if way == "expand":
        return t.unsqueeze(0).expand(2, *t.shape)
    if way == "narrow":
        d = m.dim(t)
        length = t.shape[d] if t.dim() else 1
        return t.narrow(d, m.position(length), m.position(length + 1))
    if way == "select":
        d = m.dim(t)
        return t.select(d, m.position(t.shape[d] if t.dim() else 1))
    if way in ("chunk", "unbind"):
        return (t.chunk(2, m.dim(t)) if way == "chunk" else t.unbind(m.dim(t)))[0]
    if way == "unfold":
        return t.unfold(m.dim(t), 2, 1)
    if way == "unsqueeze":
        return t.unsqueeze(m.dim(t))
    if way == "as_strided":
        return t.as_strided((2,), (1,))
    if way == "bytes":
        return t.view(m.choice(torch.int32, torch.float32, torch.uint8, torch.int64))
    if way == "view_as_real":
        return torch.view_as_real(t)
    if way == "imag":
        return t.imag
    return getattr(t, way)()


@KINDS.add(5)
def in_place(m: Lane) -> Any:
    t = m.pick()
    way = m.choice("add_", "mul_", "clamp_", "fill_", "tanh_", "zero_", "neg_", "sub_", "abs_", "exp_", "relu_")
    if way in ("add_", "mul_", "fill_", "sub_"):
        getattr(t, way)(m.number_for(t))
    elif way == "clamp_":
        t.clamp_(-2, 2)
    else:
        getattr(t, way)()


@KINDS.add(4)
def in_place_from_another(m: Lane) -> Any:
    getattr(m.pick(), m.choice("add_", "mul_", "copy_", "sub_"))(m.pick())


@KINDS.add(3)
def assigned(m: Lane) -> Any:
    t = m.pick(lambda t: t.dim() > 0)
    way = m.choice("slice", "row", "mask", "rows", "from host", "fill_rows", "scatter")
    if way == "slice":
        t[: max(1, t.shape[0] // 2)] = m.number_for(t)
    elif way == "row":
        t[m.position(t.shape[0])] = m.pick()
    elif way == "mask":
        t[t.abs() > 1 if t.dtype not in (torch.bool, torch.uint8) else t > 0] = m.number_for(t)
    elif way == "rows":
        t[m.rows(t.shape[0], 2)] = m.number_for(t)
    elif way == "from host":
        t.copy_(torch.full(t.shape, m.number_for(t)))
    elif way == "fill_rows":
        t.index_fill_(0, m.rows(t.shape[0], 2), m.number_for(t))
    else:
        t.index_add_(0, m.rows(t.shape[0], 1), t[:1].clone())


@KINDS.add(3)
def indexed(m: Lane) -> Any:
    t = m.pick(lambda t: t.dim() > 0)
    way = m.choice("rows", "select", "gather", "take", "embedding")
    if way == "rows":
        return t[m.rows(t.shape[0], 3)]
    if way == "select":
        d = m.dim(t)
        return t.index_select(d, m.rows(t.shape[d], 2))
    if way == "gather":
        return t.gather(0, torch.zeros(t.shape, dtype=torch.int64, device=m.device))
    if way == "take":
        return t.take(m.rows(t.numel(), 4))
    return F.embedding(m.rows(t.shape[0], 5), t)


@KINDS.add()
def of_unknown_size(m: Lane) -> Any:
    t = m.pick()
    way = m.choice("mask", "nonzero", "unique", "repeat_interleave")
    if way == "mask":
        return t[t != 0]
    if way == "nonzero":
        return t.nonzero()
    if way == "unique":
        return torch.unique(t)
    return torch.repeat_interleave(t, torch.tensor([2] * t.shape[0], device=m.device), dim=0)


@KINDS.add(3)
def drawn(m: Lane) -> Any:
    way = m.choice("randn", "rand", "randint", "randperm", "bernoulli", "normal_", "uniform_", "multinomial",
                   "exponential_", "random_")  # fmt: skip
    options: dict[str, Any] = {"device": m.device, "generator": m.generator}
    if way in ("randn", "rand"):
        return getattr(torch, way)(m.choice(3, 16, 40), 4, dtype=m.choice(torch.float32, torch.float64), **options)
    if way == "randint":
        return torch.randint(-3, 9, (5, 4), **options)
    if way == "randperm":
        return torch.randperm(m.choice(4, 30), **options)
    if way == "bernoulli":
        return torch.bernoulli(torch.full((4, 5), 0.3, device=m.device), generator=m.generator)
    if way == "multinomial":
        return torch.multinomial(torch.ones(3, 6, device=m.device), 3, generator=m.generator)
    t = m.pick()
    getattr(t, way)(generator=m.generator)
    return None


@KINDS.add(1)
def dropped_out(m: Lane) -> Any:
    if m.generator is not None:
        raise Skipped  # it draws from the default generator, which the lanes share
    return F.dropout(m.real(), 0.4)


@KINDS.add()
def requires_grad(m: Lane) -> Any:
    return m.real().detach().clone().requires_grad_()


@KINDS.add(3)
def backward(m: Lane) -> Any:
    t = m.pick(lambda t: t.requires_grad and not t.is_leaf)
    way = m.choice("sum", "mean", "square", "keep")
    if way == "keep":
        t.sum().backward(retain_graph=True)
    else:
        getattr(t, way)().sum().backward()


@KINDS.add()
def written_without_grad(m: Lane) -> Any:
    with torch.no_grad():
        m.pick(lambda t: t.requires_grad).add_(m.number())


@KINDS.add()
def value(m: Lane) -> Any:
    t = m.pick()
    way = m.choice("item", "tolist", "any", "equal", "is_nonzero", "allclose")
    if way == "item":
        return repr(t.reshape(-1)[-1].item())
    if way == "tolist":
        return repr(t.reshape(-1)[:5].tolist())
    if way == "any":
        return bool(t.any())
    if way == "equal":
        return torch.equal(t, m.pick())
    if way == "allclose":
        return torch.allclose(t, t.clone(), equal_nan=True)
    return torch.is_nonzero(t)


@KINDS.add(1)
def deleted(m: Lane) -> Any:
    if len(m.pool) > 3:
        del m.pool[m.rng.randrange(len(m.pool))]
