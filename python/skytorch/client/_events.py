"""Events of a Compute: the callback that logs them, and the rule for callbacks that raise.

The Event itself is the provider's (providers/_protocol.py). Callbacks run on a thread of the Compute, so they never
hold up the program; one that raises is logged once and not called again for the same failure's sake.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from skytorch.providers import Event

logger = logging.getLogger("skytorch")
EventCallback = Callable[[Event], Any]


def log_event(event: Event) -> None:
    """Log an event: warnings as warnings, the rest as information. For `on_events=`."""
    level = logging.WARNING if event.type == "Warning" else logging.INFO
    times = f" (x{event.count})" if event.count > 1 else ""
    logger.log(level, "%s: %s: %s%s", event.name or "compute", event.reason, event.message, times)


class SafeCallback:
    """Calls a user's function; what it raises is logged the first time and swallowed every time."""

    def __init__(self, function: Callable[[Any], Any] | None, *, keyword: str, compute: str) -> None:
        self._function = function
        self._keyword = keyword
        self._compute = compute
        self._logged = False

    def __bool__(self) -> bool:
        return self._function is not None

    def __call__(self, value: Any) -> None:
        if self._function is None:
            return
        try:
            self._function(value)
        except Exception:
            if not self._logged:
                self._logged = True
                logger.exception(
                    "%s: the %s callback raised (logged once; it goes on being called)", self._compute, self._keyword
                )
