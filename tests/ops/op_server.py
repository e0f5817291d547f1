"""The server of a worker process."""

from __future__ import annotations

import os
from typing import Any

import torch
from skytorch.client import Compute


class Server:
    """One of the local provider, opened when it is asked for and replaced when it has died."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._opened = 0
        self._compute: Any = None

    def device(self) -> torch.device:
        if self._compute is None:
            self._opened += 1
            self._compute = Compute(f"{self._name}-{os.getpid()}-{self._opened}", provider="local").__enter__()
        return self._compute.device()  # type: ignore[no-any-return]

    def died(self) -> bool:
        """Also takes the error of whatever failed and was not read."""
        if self._compute is None:
            return False
        try:
            torch.sky.synchronize(self.device())
        except Exception:
            pass
        if self._compute.is_ready():
            return False
        self.close()
        return True

    def close(self) -> None:
        compute, self._compute = self._compute, None
        if compute is not None:
            try:
                compute.__exit__(None, None, None)
            except Exception:
                pass
