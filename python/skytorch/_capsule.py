"""Reads the address out of a capsule: how the Rust module's C tables reach the C++ libraries."""

from __future__ import annotations

import ctypes


def pointer_of(capsule: object, name: bytes) -> int:
    """The address inside a capsule of that name."""
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype = ctypes.c_void_p
    get.argtypes = [ctypes.py_object, ctypes.c_char_p]
    return int(get(capsule, name))
