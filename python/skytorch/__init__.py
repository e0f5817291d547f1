"""SkyTorch: ordinary PyTorch here, tensors and operators on another machine.

Importing the package registers the device `sky` (no network, nothing spawned, nothing compiled); what users call
lives in `skytorch.client` and `torch.sky`. It does not register in SkyTorch's own programs, nor where
SKYTORCH_AUTOLOAD=0. The subtle thing: torch's autoload entry point imports this package from inside `import torch`.
Registering is then the entry point's decision (backend/_autoload.py), not this module's.
"""

from __future__ import annotations

import os
import sys

from skytorch._program import is_own_program
from skytorch._version import __version__
from skytorch.errors import *  # noqa: F403
from skytorch.errors import __all__ as _errors

__all__ = ["__version__"]
__all__ += _errors


def _torch_is_loading() -> bool:
    spec = getattr(sys.modules.get("torch"), "__spec__", None)
    return bool(getattr(spec, "_initializing", False))


_imported_by_torch = _torch_is_loading()
if not (_imported_by_torch or is_own_program() or os.environ.get("SKYTORCH_AUTOLOAD") == "0"):
    from skytorch.backend import register

    register()
    del register
