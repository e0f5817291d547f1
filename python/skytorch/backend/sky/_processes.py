"""A sky tensor cannot go to another process of this machine: its session belongs to one. Says so where it is seen.

torch would fail on shared memory, and where a queue is fed by a thread of its own (a DataLoader's worker), only
there: the reader would wait for ever. So in such a thread the refusal travels in place of the tensor.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from typing import Any, NoReturn

import torch
from torch.multiprocessing import reductions

from skytorch import errors
from skytorch.backend._runtime import DEVICE

_torchs_own: Callable[[torch.UntypedStorage], Any] = reductions.reduce_storage
_MESSAGE = (
    "a sky tensor cannot be sent to another process, because its session belongs to this one: send tensor.cpu(), "
    "or open a Compute in the other process"
)


def install() -> None:
    """Have `multiprocessing` ask here before it sends a storage."""
    ForkingPickler.register(torch.UntypedStorage, _reduce)


def _reduce(storage: torch.UntypedStorage) -> Any:
    if storage.device.type != DEVICE:
        return _torchs_own(storage)
    if threading.current_thread().name == "QueueFeederThread":
        return _refuse, (_MESSAGE,)
    _refuse(_MESSAGE)


def _refuse(message: str) -> NoReturn:
    raise errors.NotSupported(message)
