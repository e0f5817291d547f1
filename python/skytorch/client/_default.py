"""The Compute behind plain `device="sky"`: a local one, started on first use, left when the interpreter exits."""

from __future__ import annotations

import logging
import os

from skytorch.client._compute import Compute
from skytorch.providers import Cancel

logger = logging.getLogger("skytorch")


def open_default() -> Compute:
    """Start the local provider for this process."""
    compute = Compute(f"local-{os.getpid()}", provider="local")
    logger.info("no Compute is open: starting the local provider for device sky")
    compute._enter(Cancel())
    return compute
