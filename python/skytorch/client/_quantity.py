"""Kubernetes quantities ("500m", "8Gi"): checked here so that a typing mistake shows at the line that made it."""

from __future__ import annotations

import re

from skytorch import errors

_QUANTITY = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(Ki|Mi|Gi|Ti|Pi|Ei|n|u|m|k|M|G|T|P|E|[eE][+-]?\d+|)")


def check_quantity(value: object, field: str) -> str:
    """The quantity as text, or an error that names the field."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not _QUANTITY.fullmatch(value):
        raise errors.InvalidArgument(f'{field}: {value!r} is not a quantity such as "500m", "2" or "8Gi"')
    return value
