"""`same_on_both`: run one torch program on the local CPU and on the device under test, and compare all it returns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from compare import assert_same, run_seeded


@pytest.fixture
def same_on_both(device) -> Callable[..., Any]:
    """`same_on_both(program, **tolerances)`: `program(device)` returns tensors, numbers and containers of them."""

    def check(program: Callable[..., Any], **tolerances: Any) -> Any:
        import torch

        expected = run_seeded(program, torch.device("cpu"))
        got = run_seeded(program, device)
        assert_same(got, expected, device, **tolerances)
        return got

    return check
