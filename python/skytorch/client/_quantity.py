"""Kubernetes quantities ("500m", "8Gi"): checked here so that a typing mistake shows at the line that made it."""

from __future__ import annotations

import re
from decimal import Decimal

from skytorch import errors

_QUANTITY = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(Ki|Mi|Gi|Ti|Pi|Ei|n|u|m|k|M|G|T|P|E|[eE][+-]?\d+|)")
_FACTORS = {"n": "1e-9", "u": "1e-6", "m": "1e-3", "": "1", "k": "1e3", "M": "1e6", "G": "1e9", "T": "1e12",
            "P": "1e15", "E": "1e18"}  # fmt: skip


def check_quantity(value: object, field: str) -> str:
    """The quantity as text, or an error that names the field."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not _QUANTITY.fullmatch(value):
        raise errors.InvalidArgument(f'{field}: {value!r} is not a quantity such as "500m", "2" or "8Gi"')
    return value


def quantity_value(text: str) -> float:
    """The number that a checked quantity stands for."""
    found = _QUANTITY.fullmatch(text)
    assert found is not None
    number, unit = Decimal(found[1]), found[2]
    if unit.endswith("i"):
        return float(number * 1024 ** ("KMGTPE".index(unit[0]) + 1))
    if unit[:1] in ("e", "E") and len(unit) > 1:
        return float(number * Decimal(f"1e{unit[1:]}"))
    return float(number * Decimal(_FACTORS[unit]))
