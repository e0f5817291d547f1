"""What this process has open on the device `sky`, and the registration of the device itself.

One Runtime per process owns the native library's handle, the table of open devices, the default session that
`device="sky"` starts, and the seed that devices opened later inherit. It is not a session: sessions belong to the
Compute that opened them. The subtle thing is `fork`: a child inherits this object but none of its sessions.
"""

from __future__ import annotations

import ctypes
import os
import threading
from dataclasses import dataclass
from functools import cache
from typing import Any

from skytorch import errors
from skytorch._capsule import pointer_of
from skytorch.backend.library import load

DEVICE = "sky"
FIRST_OPERATOR_CODE = 32  # from here on C++ raises torch's own types


@dataclass(frozen=True, kw_only=True)
class OpenDevice:
    """One index of `sky`: which device of which server it stands for."""

    index: int
    server_device: int
    type: str  # "cpu", "cuda:1": as the server calls it
    name: str  # "NVIDIA H100 80GB HBM3"
    detail: str  # "sm_90", "8 threads"
    compute: str  # name of the Compute


class Interruption(KeyboardInterrupt):
    """What C++ raises for a wait that a signal handler ended. Making one gives what the handler raised instead.

    CPython 3.11 makes an exception anew where its class is not the one that was raised: what comes in goes out again.
    """

    def __new__(cls, *args: object) -> Any:
        from skytorch import _wire

        if args and isinstance(args[0], BaseException):
            return args[0]
        raised = _wire.take_raised()
        return KeyboardInterrupt(*args) if raised is None or type(raised) is KeyboardInterrupt else raised


class Runtime:
    """Owner of the process's registration and of its table of open devices. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._opening_lock = threading.RLock()
        self._ops: Any = None
        self._devices: dict[int, OpenDevice] = {}
        self._seed: int | None = None
        self._forked = False
        self._opener: Any = None
        self._opening = False
        os.register_at_fork(after_in_child=self._after_fork)

    # -- registration ------------------------------------------------------------------------------------------

    @property
    def registered(self) -> bool:
        """Whether torch knows the device."""
        return self._ops is not None

    @property
    def ops(self) -> Any:
        """The operators of namespace `skytorch`; an error with the cure if the device is not registered."""
        if self._ops is None:
            raise errors.NotSupported(
                "the device sky is not registered: import skytorch (SKYTORCH_AUTOLOAD must not be 0)"
            )
        return self._ops

    def register(self) -> None:
        """Load the library for the running torch and make `sky` a device of it. Once per process."""
        with self._lock:
            if self._ops is not None:
                return
            import torch

            name = torch._C._get_privateuse1_backend_name()
            if name not in ("privateuseone", DEVICE):
                raise ImportError(
                    f"torch's slot for outside devices is taken by {name!r}: skytorch cannot share a process with it"
                )
            load(torch.__version__)
            ops = torch.ops.skytorch
            self._attach(ops)
            torch.utils.rename_privateuse1_backend(DEVICE)
            from skytorch.backend import sky

            torch._register_device_module(DEVICE, sky)
            torch.utils.generate_methods_for_privateuse1_backend(for_storage=True)
            sky._install()
            _refuse_late_registration()
            self._ops = ops

    def _attach(self, ops: Any) -> None:
        try:
            from skytorch import _wire
        except ImportError as error:
            raise ImportError(
                f"skytorch's Rust module cannot be loaded ({error}): reinstall it, or `make build` in a checkout"
            ) from None
        ops.attach(pointer_of(_wire.client_api(), b"skytorch.client_api"))
        for code in errors.CODES:
            if code < FIRST_OPERATOR_CODE:
                kind = errors.class_of(code)
                ops.set_exception(code, id(Interruption if kind is KeyboardInterrupt else kind))
        self._opener = ctypes.CFUNCTYPE(ctypes.c_uint32, ctypes.c_void_p, ctypes.c_uint64)(self._open_for_cxx)
        ops.set_opener(ctypes.cast(self._opener, ctypes.c_void_p).value)

    # -- open devices --------------------------------------------------------------------------------------------

    @property
    def devices(self) -> list[OpenDevice]:
        """The open devices in the order of their index."""
        return [self._devices[index] for index in sorted(self._devices)]

    def describe(self, index: int) -> OpenDevice:
        """What `sky:index` stands for."""
        found = self._devices.get(index)
        if found is None:
            open_ones = ", ".join(f"sky:{i}" for i in sorted(self._devices)) or "none is open"
            raise errors.DeviceNotFound(f"sky:{index} is not open ({open_ones})")
        return found

    def open_device(self, *, session: int, server_device: int, type: str, label: str, compute: str) -> OpenDevice:
        """Give a device of a session (its pointer) the lowest free index."""
        with self._lock:
            index = int(self.ops.open_device(session, server_device, type))
            name, _, detail = label.partition(" | ")
            opened = OpenDevice(
                index=index, server_device=server_device, type=type, name=name, detail=detail, compute=compute
            )
            self._devices[index] = opened
            if self._seed is not None:
                self.ops.manual_seed(index, self._seed)
            return opened

    def close_device(self, index: int) -> None:
        """Free the index; what still lives on it raises SessionClosed from now on."""
        with self._lock:
            if self._devices.pop(index, None) is not None:
                self.ops.close_device(index)

    def seed_all(self, seed: int) -> None:
        """Seed every open device, and those that are opened later. One whose server died has nothing left to seed."""
        with self._lock:
            self._seed = seed
            for index in self._devices:
                try:
                    self.ops.manual_seed(index, seed)
                except (errors.ConnectionLost, errors.SessionClosed):
                    pass

    def ensure_open(self) -> None:
        """Start the local provider if nothing is open yet."""
        if self.in_bad_fork:
            raise errors.ForkedSession(
                "the device sky cannot be used in a forked child: start the process with the 'spawn' method"
            )
        with self._opening_lock:  # not _lock: opening takes seconds, and threads of its own
            if self._devices or self._opening:
                return
            self._opening = True  # connecting may itself touch the device on this thread
            try:
                from skytorch.client._default import open_default

                open_default()
            finally:
                self._opening = False

    def _open_for_cxx(self, message: int, capacity: int) -> int:
        """Called from C++, which can see no exception: it gets the code of one (0: none) and the message."""
        try:
            self.ensure_open()
            return 0
        except BaseException as error:
            kind = next((kind for kind in (errors.ForkedSession, KeyboardInterrupt) if isinstance(error, kind)), None)
            text = f"sky: no Compute is open, and the local provider started none: {error}"
            encoded = (text if kind is None else str(error)).encode()[: capacity - 1]
            ctypes.memmove(message, encoded + b"\0", len(encoded) + 1)
            return next(code for code, known in errors.CODES.items() if known is (kind or errors.Unreachable))

    # -- fork ----------------------------------------------------------------------------------------------------

    @property
    def in_bad_fork(self) -> bool:
        """True in a child that was forked while sessions were open."""
        return self._forked

    def _after_fork(self) -> None:
        self._lock, self._opening_lock = threading.RLock(), threading.RLock()
        self._forked = self._forked or bool(self._devices)


@cache
def process_runtime() -> Runtime:
    """The process's Runtime."""
    return Runtime()


def _refuse_late_registration() -> None:
    """Autograd fixes its list of devices at the first backward of the process. Ask it, if there may have been one."""
    import torch

    if torch._C._autograd._get_sequence_nr() == 0:
        return  # this thread has never recorded a graph, so there was nothing to run backward

    class Probe(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return _bare_tensor()  # type: ignore[no-any-return]

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            return torch.zeros(())

    probe = Probe.apply(torch.zeros((), requires_grad=True))
    try:
        torch.autograd.backward(probe, _bare_tensor())
    except RuntimeError as error:
        if "device_ready_queues_" not in str(error):
            raise
        raise ImportError(
            "skytorch was imported after the first backward() of this process, when autograd has already fixed its "
            "list of devices: move `import skytorch` before it"
        ) from None


def _bare_tensor() -> Any:
    """A tensor on sky without a storage: nothing is opened or sent for it."""
    import torch

    class Bare(torch.Tensor):
        @classmethod
        def __torch_dispatch__(cls, *args: Any, **kwargs: Any) -> Any:
            return NotImplemented

    device = torch.device(DEVICE, 0)
    return torch.Tensor._make_wrapper_subclass(Bare, (), device=device, dtype=torch.float32)
