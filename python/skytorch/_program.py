"""Whether this process is one of SkyTorch's own programs: the server or the command line.

They import the package like anybody else but must not register the device: in the server it would become torch's
accelerator beside the real one, and `skytorch ls` has no use for torch. The subtle thing: this is asked while the
package is being imported, before the program's own module runs, so only the interpreter's command line can tell.
"""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import PurePath

_MODULES = ("skytorch.server", "skytorch.cli")


def is_own_program() -> bool:
    """True in `python -m skytorch.server`, `python -m skytorch.cli` and the `skytorch` script."""
    line = sys.orig_argv[1:]
    for option, module in pairwise(line):
        if option == "-m":
            return module in _MODULES or module.startswith(tuple(f"{name}." for name in _MODULES))
        if option == "-c":
            return False
    script = next((word for word in line if not word.startswith("-")), "")
    return PurePath(script).name in ("skytorch", "skytorch.exe") and PurePath(script).suffix != ".py"
