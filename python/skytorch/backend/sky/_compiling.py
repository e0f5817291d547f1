"""What torch.compile's inductor gets for `sky`: a refusal that says which backend to take instead.

Inductor writes kernels for the machine that it runs on. `eager` and `aot_eager` issue operators and work. torch looks
the classes up on `torch.sky` by name when it first compiles, so that this module, which imports inductor, loads then.
"""

from __future__ import annotations

from typing import Any, NoReturn

from torch._inductor.codegen.common import DeviceOpOverrides, register_device_op_overrides

from skytorch import errors
from skytorch.backend._runtime import DEVICE

_MESSAGE = (
    "inductor makes kernels for the machine that it runs on, and sky's operators run on another: "
    "use torch.compile(..., backend='aot_eager')"
)


class Refusal:
    """Stands for the code generators of inductor."""

    supports_caching = False  # asked of the class before it is used

    def __init__(self, *args: Any, **options: Any) -> None:
        raise errors.NotSupported(_MESSAGE)

    @staticmethod
    def create(*args: Any, **options: Any) -> NoReturn:
        """The way in which inductor makes the code of a graph."""
        raise errors.NotSupported(_MESSAGE)


register_device_op_overrides(DEVICE, DeviceOpOverrides())
