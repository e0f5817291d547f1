"""The entry point of torch's `torch.backends` group: it runs inside `import torch` for everybody in the environment.

It never raises, compiles, spawns or opens a socket. Registering makes `sky` *the* accelerator even beside a local
one, so it registers only where there is none, or with SKYTORCH_AUTOLOAD=1; SKYTORCH_AUTOLOAD=0 means never. The
subtle thing: where it decides against it, it takes the package out of sys.modules again, so that a later `import
skytorch`, which registers, runs the package's body a second time.
"""

from __future__ import annotations

import logging
import os
import sys

from skytorch._program import is_own_program


def register() -> None:
    """Register the device if this environment wants it. Called by `import torch`."""
    package = sys.modules["skytorch"]
    if getattr(package.__spec__, "_initializing", False):
        return  # `import skytorch` is what imports torch here, and registers when torch is there
    try:
        if _wanted():
            from skytorch.backend import register as register_device

            register_device()
            return
    except Exception as error:  # import torch must succeed whatever is wrong with us
        logging.getLogger("skytorch").debug("the device sky was not registered: %s", error)
    if not package._imported_by_torch:
        return  # the server or the command line, which use the package and not the device
    for name in [name for name in sys.modules if name == "skytorch" or name.startswith("skytorch.")]:
        del sys.modules[name]


def _wanted() -> bool:
    choice = os.environ.get("SKYTORCH_AUTOLOAD", "")
    if choice in ("0", "1"):
        return choice == "1"
    return not is_own_program() and not _has_local_accelerator()


def _has_local_accelerator() -> bool:
    """Whether torch can compute here on more than the CPU. It asks NVML first, which leaves `fork` usable."""
    import torch

    if torch.cuda.device_count() > 0:
        return True
    if torch.backends.mps.is_available():
        return True
    return bool(torch.xpu.is_available() or torch.mtia.is_available())
