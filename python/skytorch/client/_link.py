"""The session of one Compute, and the indices of `sky` that stand for its server's devices.

It is the only place of the client that touches torch and native modules. The best device gets its index right after
the session has opened, so that plain `device="sky"` finds it; the others get theirs when they are asked for.
"""

from __future__ import annotations

import os
import re
import socket
import sys
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from skytorch import errors
from skytorch.providers import Cancel, Endpoint
from skytorch.providers.address import wire_tls

if TYPE_CHECKING:
    import torch

    from skytorch._wire import Session


class Link:
    """An open session and its devices."""

    def __init__(self, compute: str, endpoint: Endpoint, session: Session) -> None:
        self.compute = compute
        self.endpoint = endpoint
        self._session = session
        self._lock = threading.Lock()
        self._indices: dict[int, int] = {}  # number of the server's device -> index of sky

    @classmethod
    def connect(cls, compute: str, endpoint: Endpoint, *, timeout_s: float) -> Link:
        """Open the session. None of its devices has an index yet."""
        from skytorch import _wire, backend

        backend.register()
        import torch

        peer: dict[str, Any] = {} if endpoint.peer_address is None else {"peer_address": endpoint.peer_address}
        session = _wire.connect(
            endpoint.address,
            token=endpoint.token,
            tls=wire_tls(endpoint.tls),
            timeout_s=timeout_s,
            client=f"{os.path.basename(sys.argv[0]) or 'python'} (process {os.getpid()} on {socket.gethostname()})",
            torch_version=torch.__version__,
            **peer,
        )
        return cls(compute, endpoint, session)

    @classmethod
    def connect_or_cancel(cls, compute: str, endpoint: Endpoint, *, timeout_s: float, cancel: Cancel) -> Link:
        """As `connect`, but a cancellation or Ctrl-C does not wait for a silent server: its answer is dropped."""
        outcome: Future[Link] = Future()

        def body() -> None:
            try:
                link = cls.connect(compute, endpoint, timeout_s=timeout_s)
            except BaseException as error:
                if outcome.set_running_or_notify_cancel():
                    outcome.set_exception(error)
                return
            if outcome.set_running_or_notify_cancel():
                outcome.set_result(link)
            else:
                link.close()

        threading.Thread(target=body, name=f"{compute}-connect", daemon=True).start()
        cancel.when_requested(outcome.cancel)
        try:
            return outcome.result()
        except BaseException:
            if not outcome.cancel() and outcome.exception() is None:
                outcome.result().close()
            raise

    @property
    def is_open(self) -> bool:
        """Whether the session lives, as far as this side knows."""
        return self._session.is_open

    @property
    def devices(self) -> list[str]:
        """The server's devices, such as ["cpu", "cuda:0"]."""
        return [kind for kind, _ in self._session.devices]

    @property
    def server_info(self) -> dict[str, Any]:
        """What the server and the provider say of the server."""
        info = {**self.endpoint.info, **self._session.server_info, "session_id": self._session.session_id}
        for _, label in self._session.devices:
            if found := re.search(r" \| (\d+) threads$", label):
                info["threads"] = int(found[1])
        return info

    def stats(self) -> dict[str, int]:
        """The session's counters."""
        return self._session.stats()

    def device(self, type: Any, index: int | None) -> torch.device:
        """The device of type `sky` for one of the server's; None is the best that it has."""
        import torch

        from skytorch.backend import runtime

        number = _choose(self.devices, type, index, self.compute)
        with self._lock:
            if number not in self._indices:
                kind, label = self._session.devices[number]
                opened = runtime().open_device(
                    session=self._session.pointer, server_device=number, type=kind, label=label, compute=self.compute
                )
                self._indices[number] = opened.index
            return torch.device("sky", self._indices[number])

    def take_failure(self, *, timeout_s: float | None) -> Exception | None:
        """Wait for everything issued; the first failure that nobody has read, if there is one, or a Timeout."""
        try:
            self._session.take_failure(timeout_s)
        except Exception as error:
            return error
        return None

    def close(self, *, timeout_s: float = 60.0) -> None:
        """Free the indices and end the session; what was issued runs, but after `timeout_s` nobody waits for it.

        Only Ctrl-C is raised: a lost session is closed too.
        """
        from skytorch.backend import runtime

        with self._lock:
            indices, self._indices = self._indices, {}
        for index in indices.values():
            runtime().close_device(index)
        try:
            self._session.close(timeout_s)
        except errors.SkyTorchError:
            pass  # the server or the link is gone, which is what closing wanted, or it took too long


def _choose(devices: list[str], type: Any, index: int | None, compute: str) -> int:
    """The number of the server's device that `type` and `index` name."""
    if type is None and index is None:
        return next((n for n, name in enumerate(devices) if name != "cpu"), 0)
    if isinstance(type, tuple):
        type, index = type
    wanted = str(type) if type is not None else devices[_choose(devices, None, None, compute)].partition(":")[0]
    if index is not None:
        if ":" in wanted:
            raise errors.InvalidArgument(f"device: {wanted!r} names an index already; leave out index={index}")
        wanted = f"{wanted}:{index}"
    for number, name in enumerate(devices):
        if wanted in (name, f"{name}:0") or (":" not in wanted and name.partition(":")[0] == wanted):
            return number
    raise errors.DeviceNotFound(f"compute {compute!r} has no device {wanted!r}; it has {', '.join(devices)}")
