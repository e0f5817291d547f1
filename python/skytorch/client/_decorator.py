"""`@compute(...)`: a function that runs with a Compute of its own, as its first argument.

Every call applies a fresh Compute, waits for it, runs the function and deletes it, however the function ends.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Unpack

from skytorch.client._compute import Compute
from skytorch.client._spec import Options, Spec, WrongKeyword


def compute(name: str, **options: Unpack[Options]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Run the decorated `def` or `async def` with a Compute; the keywords are those of `Compute`."""
    if callable(name):
        function = getattr(name, "__name__", "function")
        suggestion = function.replace("_", "-").lower()
        raise WrongKeyword(
            f'compute needs a name: write @compute("{suggestion}") above {function}, not @compute alone'
        )
    Spec.check(name, options)

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def run_async(*args: Any, **kwargs: Any) -> Any:
                async with Compute(name, **options) as node:
                    return await function(node, *args, **kwargs)

            return run_async

        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            with Compute(name, **options) as node:
                return function(node, *args, **kwargs)

        return run

    return decorate
