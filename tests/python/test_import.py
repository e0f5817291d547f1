"""Importing: what `import skytorch` and torch's autoload register, at what cost, and what is said if they cannot."""

from __future__ import annotations

import pytest
from servers import run_python

ENTRY_POINT = """
import sys
import importlib.metadata as metadata
point = metadata.EntryPoint("skytorch", "skytorch.backend._autoload:register", "torch.backends")
original = metadata.entry_points
metadata.entry_points = lambda **k: [point] if k.get("group") == "torch.backends" else original(**k)
"""
IS_REGISTERED = "import torch; print(torch._C._get_privateuse1_backend_name(), hasattr(torch, 'sky'))\n"


def lines(code: str, **env: str) -> list[str]:
    done = run_python(code, **env)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_import_registers_without_opening_anything():
    code = (
        "import socket, subprocess, os\n"
        "def refuse(*a, **k): raise AssertionError('opened or spawned')\n"
        "import torch\n"
        "socket.socket = subprocess.Popen = os.fork = refuse\n"
        "import skytorch\n" + IS_REGISTERED + "print(torch.sky.device_count(), torch.accelerator.device_count())\n"
        "print(torch.accelerator.current_accelerator())"
    )
    assert lines(code) == ["sky True", "0 0", "sky"]


@pytest.mark.slow
@pytest.mark.alone
def test_import_costs_little_beyond_torch():
    code = (
        "import time, torch\n"
        "started = time.perf_counter()\n"
        "import skytorch.client\n"
        "print(time.perf_counter() - started)\n"
        "import sys; print([m for m in ('rich', 'psutil', 'kubernetes', 'grpc') if m in sys.modules])"
    )
    seconds, heavy = min((lines(code) for _ in range(3)), key=lambda found: float(found[0]))
    assert float(seconds) <= 0.3
    assert heavy == "[]"


def test_autoload_registers_where_there_is_no_accelerator():
    assert lines(ENTRY_POINT + IS_REGISTERED, SKYTORCH_AUTOLOAD="1") == ["sky True"]


@pytest.mark.slow
def test_autoload_can_be_refused_and_import_skytorch_then_registers():
    assert lines(ENTRY_POINT + IS_REGISTERED, SKYTORCH_AUTOLOAD="0") == ["privateuseone False"]
    beside_a_gpu = ENTRY_POINT + (
        "def find(name):\n"
        "    import skytorch.backend._autoload as autoload\n"
        "    autoload._has_local_accelerator = lambda: True\n"
        "    return autoload.register\n"
        "metadata.EntryPoint.load = lambda self: find(self.value)\n"
    )
    code = beside_a_gpu + IS_REGISTERED + "import skytorch\n" + IS_REGISTERED
    assert lines(code) == ["privateuseone False", "sky True"]


def test_autoload_never_raises():
    code = ENTRY_POINT + "import torch; print(torch.ones(2).sum().item())"
    assert lines(code, SKYTORCH_AUTOLOAD="1", SKYTORCH_LIB_DIR="/nowhere", XDG_CACHE_HOME="/nowhere") == ["2.0"]


@pytest.mark.slow
def test_importing_after_a_backward_is_a_clear_error():
    done = run_python(
        "import torch\nx = torch.ones(2, requires_grad=True); x.sum().backward()\nimport skytorch",
        TORCH_DEVICE_BACKEND_AUTOLOAD="0",
    )
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: skytorch was imported after the first backward()")


@pytest.mark.slow
def test_importing_after_a_forward_alone_is_fine():
    code = (
        "import torch\nx = torch.ones(2, requires_grad=True); y = x.sum()\nimport skytorch\n"
        "z = torch.ones(2, device='sky', requires_grad=True); z.sum().backward(); print(z.grad.tolist())"
    )
    assert lines(code, TORCH_DEVICE_BACKEND_AUTOLOAD="0") == ["[1.0, 1.0]"]


def test_no_library_for_this_torch_is_one_clear_line():
    code = (
        "import skytorch._program as p\n"
        "import skytorch.backend.library as library, pathlib\n"
        "library.PACKAGE_LIB = pathlib.Path('/nowhere')\n"
        "import skytorch.backend; skytorch.backend.register()"
    )
    done = run_python(code, SKYTORCH_AUTOLOAD="0", XDG_CACHE_HOME="/nowhere")
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: skytorch has no C++ part for torch")
    assert "skytorch build-backend" in last


def test_the_server_does_not_register():
    code = "import sys; sys.orig_argv = ['python', '-m', 'skytorch.server']\nimport skytorch\n" + IS_REGISTERED
    assert lines(code, TORCH_DEVICE_BACKEND_AUTOLOAD="0") == ["privateuseone False"]
