"""Autograd on the device: the engine's threads, hooks, custom functions, double backward and checkpointing."""

from __future__ import annotations

import threading

import pytest
import torch
from servers import run_python
from torch import nn
from torch.utils.checkpoint import checkpoint


def test_backward_through_a_network(same_on_both):
    def program(device):
        net = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 3)).to(device)
        x = torch.randn(4, 6).to(device).requires_grad_()
        nn.functional.cross_entropy(net(x), torch.tensor([0, 2, 1, 1], device=device)).backward()
        return [x, list(net.parameters())]

    same_on_both(program)


def test_gradient_accumulates(same_on_both):
    def program(device):
        w = torch.ones(3, device=device, requires_grad=True)
        for factor in (1, 2, 3):
            (w * factor).sum().backward()
        return w

    same_on_both(program)


def test_double_backward(same_on_both):
    def program(device):
        x = torch.linspace(-1, 1, 5, device=device, requires_grad=True)
        (first,) = torch.autograd.grad((x.exp() * x.sin()).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.pow(2).sum(), x)
        return [first, second]

    same_on_both(program)


def test_jacobian_hessian_and_vmap(same_on_both):
    def program(device):
        x, w = torch.randn(3).to(device), torch.randn(4, 3).to(device)
        jacobian = torch.func.jacrev(lambda v: (w @ v).tanh())(x)
        hessian = torch.func.hessian(lambda v: v.pow(3).sum())(x)
        rows = torch.vmap(lambda row: row.softmax(0).sum() + (row * x).sum())(w)
        return [jacobian, hessian, rows]

    same_on_both(program)


def test_forward_mode(same_on_both):
    def program(device):
        x, t = torch.randn(4).to(device), torch.randn(4).to(device)
        return torch.func.jvp(lambda v: (v.sin() * v).cumsum(0), (x,), (t,))

    same_on_both(program)


def test_custom_function_and_hooks(same_on_both):
    class Cube(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x * x

        @staticmethod
        def backward(ctx, grad):
            (x,) = ctx.saved_tensors
            return 3 * x * x * grad

    def program(device):
        seen = []
        x = torch.arange(4.0, device=device, requires_grad=True)
        y = Cube.apply(x)
        y.register_hook(lambda grad: grad * 2)
        x.register_post_accumulate_grad_hook(lambda leaf: seen.append(leaf.grad.clone()))
        y.sum().backward()
        return [x, seen]

    same_on_both(program)


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing(same_on_both, reentrant):
    def program(device):
        block = nn.Sequential(nn.Linear(5, 5), nn.Dropout(0.5), nn.Tanh()).to(device)
        x = torch.randn(3, 5).to(device).requires_grad_()
        torch.manual_seed(7)
        checkpoint(block, x, use_reentrant=reentrant).sum().backward()
        return [x, list(block.parameters())]

    same_on_both(program)


def test_anomaly_mode_finds_the_forward_line(device):
    with torch.autograd.detect_anomaly(check_nan=True):
        x = torch.zeros(3, device=device, requires_grad=True)
        y = (x / x).sum()
        with pytest.raises(RuntimeError, match="returned nan values"):
            y.backward()


def test_several_threads(device):
    """Each thread has a model of its own and trains it; the engine's device thread serves them all."""
    results: dict[int, list[torch.Tensor]] = {}

    def work(number: int, where: torch.device) -> None:
        generator = torch.Generator().manual_seed(number)
        w = torch.randn(8, 8, generator=generator).to(where).requires_grad_()
        x = torch.randn(8, 8, generator=generator).to(where)
        for _ in range(30):
            loss = (x @ w).tanh().square().mean()
            (grad,) = torch.autograd.grad(loss, w)
            with torch.no_grad():
                w -= 0.1 * grad
        results[number] = [loss.detach().cpu(), w.detach().cpu()]

    def run(where: torch.device) -> dict[int, list[torch.Tensor]]:
        results.clear()
        threads = [threading.Thread(target=work, args=(number, where)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return dict(results)

    got, expected = run(device), run(torch.device("cpu"))
    assert sorted(got) == list(range(6))
    for number in expected:
        torch.testing.assert_close(got[number], expected[number])


def test_backward_in_another_thread_than_forward(same_on_both):
    def program(device):
        w = torch.ones(4, 4, device=device, requires_grad=True)
        loss = (w @ w).sum()
        thread = threading.Thread(target=loss.backward)
        thread.start()
        thread.join()
        return w

    same_on_both(program)


@pytest.mark.remote
@pytest.mark.slow
def test_device_opened_after_the_first_backward():
    """The engine fixes its queues at the first backward: the guard's fixed capacity must have been told by then."""
    done = run_python(
        "import torch, skytorch\n"
        "from skytorch.client import Compute\n"
        "w = torch.ones(3, requires_grad=True); (w * w).sum().backward()\n"
        "with Compute('late', provider='local') as node:\n"
        "    v = torch.ones(3, device=node.device(), requires_grad=True)\n"
        "    (v * v).sum().backward()\n"
        "    print(v.grad.cpu().tolist())\n"
    )
    assert done.stdout.strip() == "[2.0, 2.0, 2.0]", done.stderr


@pytest.mark.remote
def test_imported_after_the_first_backward():
    """Too late to register: either it works, or the import says so. Never an internal assertion at a backward."""
    done = run_python(
        "import torch\n"
        "w = torch.ones(3, requires_grad=True); (w * w).sum().backward()\n"
        "try:\n"
        "    import skytorch\n"
        "except ImportError as error:\n"
        "    print('refused:', error)\n"
        "else:\n"
        "    v = torch.ones(3, device='sky', requires_grad=True)\n"
        "    (v * v).sum().backward()\n"
        "    print(v.grad.cpu().tolist())\n",
        TORCH_DEVICE_BACKEND_AUTOLOAD="0",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("refused:") or done.stdout.strip() == "[2.0, 2.0, 2.0]", done.stdout
    if done.stdout.startswith("refused:"):
        assert "backward" in done.stdout
        assert "import skytorch" in done.stdout


def test_activations_have_the_derivative_of_the_cpu(same_on_both):
    """Not the one composed of other operators, which rounds otherwise."""

    def program(device):
        leaves = [torch.linspace(-3, 3, 50).to(device).requires_grad_() for _ in range(2)]
        (nn.functional.silu(leaves[0]).pow(2).sum() + nn.functional.mish(leaves[1]).pow(2).sum()).backward()
        return [leaf.grad for leaf in leaves]

    same_on_both(program, rtol=0, atol=0)


def test_attention_without_a_gradient(same_on_both):
    """As gradcheck asks: backward runs with an undefined gradient."""

    def program(device):
        q = torch.linspace(0, 1, 24).reshape(1, 2, 3, 4).to(device).requires_grad_()
        out = torch._C._functions.UndefinedGrad()(nn.functional.scaled_dot_product_attention(q, q, q))
        grads = torch.autograd.grad(out, [q], torch.ones_like(out), allow_unused=True)
        return [grad is None for grad in grads]

    same_on_both(program)
