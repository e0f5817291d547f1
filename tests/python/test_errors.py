"""The exception tree: one class a code, drawn in the module's docstring. `tests/error_codes.rs` holds the numbers."""

from __future__ import annotations

import pytest
import torch
from skytorch import _wire, errors

CLASSES = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.SkyTorchError)]


def test_every_class_is_public_and_drawn() -> None:
    for cls in CLASSES:
        assert cls.__name__ in errors.__all__
        assert cls.__doc__
        assert cls.__name__ in (errors.__doc__ or "")


def test_each_class_has_one_code() -> None:
    of_the_wire = [errors.class_of(code) for code in range(1, 32) if code in errors.CODES]
    assert len(of_the_wire) == len(set(of_the_wire)) == 15
    providers_own = {errors.SkyTorchError, errors.ComputeFailed, errors.ComputeNotReady, errors.Forbidden}
    assert set(CLASSES) - providers_own == set(of_the_wire) - {KeyboardInterrupt}


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (32, RuntimeError),
        (33, IndexError),
        (34, ValueError),
        (35, TypeError),
        (36, NotImplementedError),
        (37, torch.OutOfMemoryError),
        (38, torch.linalg.LinAlgError),  # type: ignore[attr-defined]
    ],
)
def test_operators_keep_torchs_types(code: int, expected: type[Exception]) -> None:
    error = errors.from_code(code, "add: no")
    assert type(error) is expected
    assert str(error) == "add: no"


def test_an_unknown_code_is_an_internal_error() -> None:
    assert type(errors.from_code(31, "?")) is errors.InternalError
    assert type(errors.from_code(4_000_000_000, "?")) is errors.InternalError


@pytest.mark.parametrize(
    ("cls", "builtin"),
    [
        (errors.InvalidArgument, ValueError),
        (errors.DeviceNotFound, ValueError),
        (errors.Unreachable, ConnectionError),
        (errors.ConnectionLost, ConnectionError),
        (errors.NotSupported, NotImplementedError),
        (errors.Timeout, TimeoutError),
        (errors.ForkedSession, errors.SessionClosed),
    ],
)
def test_what_a_class_also_is(cls: type[Exception], builtin: type[Exception]) -> None:
    with pytest.raises(builtin, match="because"):
        raise cls("because")


def test_rust_raises_them() -> None:
    with pytest.raises(errors.Unreachable):
        _wire.connect("unix:///nonexistent/skytorch.sock", timeout_s=1)
    with pytest.raises(errors.InvalidArgument):
        _wire.connect("gopher://somewhere", timeout_s=1)
