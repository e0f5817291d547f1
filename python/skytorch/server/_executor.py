"""The C++ executor of this process, through ctypes: one method for each function of server/src/library.cpp.

The subtle thing: libtorch is loaded without `import torch`. The executor needs nothing of the Python package, and
importing that takes several times as long as everything else of a start; `--import` brings it in.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

from skytorch.backend.library import Torch, cannot_load, find

_TELL = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p)


class Executor:
    """Loads the library for that torch; an ImportError of one line if it cannot."""

    def __init__(self, torch: Torch) -> None:
        path = find("server", torch.version)
        try:
            _load_torch(torch.folder / "lib")
            self._library = ctypes.CDLL(str(path))
        except OSError as error:
            raise cannot_load(torch.version, error) from None
        for name, *kinds in (
            ("attach", ctypes.c_void_p),
            ("set_limits", ctypes.c_uint64, ctypes.c_uint64),
            ("devices", _TELL),
            ("allow_namespace", ctypes.c_char_p),
            ("serve", ctypes.c_void_p),
        ):
            function = self._function(name)
            function.argtypes, function.restype = kinds, ctypes.c_char_p
            function.errcheck = _raise
        self._function("stats").restype = None  # it cannot fail, and nor can `threads`

    def _function(self, name: str) -> Any:
        return getattr(self._library, f"skytorch_server_{name}")

    def attach(self, server_api: int) -> None:
        """Give it the functions of `skytorch._wire` for executors."""
        self._function("attach")(server_api)

    def set_limits(self, max_memory: int, max_storages: int) -> None:
        """Bytes of tensors on each device (0: what the machine has), and storages of a session."""
        self._function("set_limits")(max_memory, max_storages)

    def devices(self) -> list[tuple[str, str]]:
        """Name ("cuda:0") and label ("NVIDIA H200 | sm_90") of each device."""
        found: list[tuple[str, str]] = []
        self._function("devices")(_TELL(lambda name, label: found.append((name.decode(), label.decode()))))
        return found

    def allow_namespace(self, name: str) -> None:
        """Clients may use the operators of this namespace."""
        self._function("allow_namespace")(name.encode())

    def serve(self, server: int) -> None:
        """Take sessions from `Server.pointer` until the server is stopped."""
        self._function("serve")(server)

    def stats(self) -> tuple[int, int, int]:
        """Operators executed, records queued, resident bytes."""
        counts = (ctypes.c_uint64 * 3)()
        self._function("stats")(counts)
        return counts[0], counts[1], counts[2]

    def threads(self) -> int:
        """Threads that a CPU operator uses."""
        return int(self._function("threads")())


def _raise(text: bytes | None, _function: object, _arguments: object) -> None:
    if text is not None:
        raise RuntimeError(text.decode(errors="replace"))


def _load_torch(folder: Path) -> None:
    """libtorch, for everything that is loaded after it; a torch without CUDA has fewer of the files."""
    try:
        for name in ("libtorch_global_deps.so", "libtorch_cuda.so", "libtorch_cpu.so"):
            if (folder / name).exists():
                ctypes.CDLL(str(folder / name), mode=ctypes.RTLD_GLOBAL)
    except OSError:
        import torch  # noqa: F401  # it knows where else the CUDA libraries may lie
