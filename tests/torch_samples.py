"""torch's own list of operators with sample arguments, made on a thread of its own and without formatted stacks.

torch looks at the whole call stack for every entry and every sample. Under pytest, whose stack is deep, that is most
of the time that the tests over these lists would take; a thread's stack is short. And until CUDA, XPU and MTIA are
used torch formats the stack three times for every seed, to keep it; that was most of the rest.
"""

from __future__ import annotations

import contextlib
import importlib
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any
from unittest import mock

import torch


@contextlib.contextmanager
def without_stacks() -> Iterator[None]:
    """Inside, seeding a generator formats no stack."""
    with mock.patch.object(traceback, "format_stack", return_value=[]):
        yield


def _on_short_stack(work: Callable[[], Any]) -> Any:
    with ThreadPoolExecutor(1) as pool, without_stacks():
        return pool.submit(work).result()


def operators() -> list[Any]:
    return _on_short_stack(
        lambda: importlib.import_module("torch.testing._internal.common_methods_invocations").op_db
    )


def sample_inputs(op: Any, dtype: torch.dtype, requires_grad: bool, count: int | None = None) -> list[Any]:
    """The first `count` samples of an operator, or all."""
    return _on_short_stack(lambda: list(islice(op.sample_inputs("cpu", dtype, requires_grad=requires_grad), count)))


def error_inputs(op: Any) -> list[Any]:
    """Arguments that the operator has to refuse."""
    return _on_short_stack(lambda: list(op.error_inputs("cpu"))) if op.error_inputs_func else []
