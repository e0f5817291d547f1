"""The PrivateUse1 device `sky` on the Python side: registering it, and which sessions are its devices.

It is not the place for operators (csrc/) nor for starting servers (client/, providers/). Importing it loads neither
torch nor a native library; the first call of `register()` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from skytorch.backend._runtime import Runtime

__all__ = ["register", "runtime"]


def runtime() -> Runtime:
    """The process's one Runtime (registered or not)."""
    from skytorch.backend._runtime import process_runtime

    return process_runtime()


def register() -> None:
    """Register the device `sky` with the running torch. Doing it again changes nothing."""
    runtime().register()
