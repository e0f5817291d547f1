"""Streams and events. A session has one total order, so every stream of a device is that one order.

Streams exist so that programs written for several of them run: waiting between them is already guaranteed. Events are
recorded on the server, by the clock of its device; `elapsed_time` is real. The subtle thing: `query` cannot look
without asking the server, so it waits for the event and answers True, which ends every polling loop.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

import torch

from skytorch.backend._runtime import DEVICE
from skytorch.backend.sky._utils import Device, open_index


class Stream(torch.Stream):
    """A stream of the device. `priority` is accepted and means nothing."""

    def __new__(cls, device: Device = None, priority: int = 0, **ids: Any) -> Stream:
        """The stream of `device`, or the one that `stream_id`, `device_index`, `device_type` name."""
        if ids:
            return super().__new__(cls, priority=priority, **ids)
        return super().__new__(cls, device=torch.device(DEVICE, open_index(device)), priority=priority)


class _EventsOfSky(type):
    def __instancecheck__(cls, other: object) -> bool:
        return isinstance(other, torch.Event) and other.device.type == DEVICE


class Event(metaclass=_EventsOfSky):
    """A torch.Event of the device, to be recorded later. (No subclass of it: `elapsed_time` refuses one.)"""

    def __new__(cls, enable_timing: bool = False, blocking: bool = False, interprocess: bool = False) -> Any:
        """An event that nothing has recorded yet."""
        if interprocess:
            raise NotImplementedError("events of the device sky cannot be shared between processes")
        return torch.Event(torch.device(DEVICE), enable_timing=enable_timing, blocking=blocking)


class StreamContext:
    """Context manager that makes a stream, and its device, current inside its block."""

    def __init__(self, stream: torch.Stream | None) -> None:
        self.stream = stream
        self._previous: torch.Stream | None = None

    def __enter__(self) -> None:
        if self.stream is not None:
            self._previous = torch.accelerator.current_stream()
            torch.accelerator.set_stream(self.stream)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._previous is not None:
            torch.accelerator.set_stream(self._previous)


def stream(stream: torch.Stream | None) -> StreamContext:
    """Context manager that makes `stream` current."""
    return StreamContext(stream)


def current_stream(device: Device = None) -> torch.Stream:
    """The current stream of the device."""
    found: torch.Stream = torch.accelerator.current_stream(torch.device(DEVICE, open_index(device)))
    return found


def default_stream(device: Device = None) -> Stream:
    """The device's stream."""
    return Stream(device)


def is_current_stream_capturing() -> bool:
    """Whether a graph is being captured: never, since a session is no graph."""
    return False


def set_stream(stream: torch.Stream | None) -> None:
    """Make `stream` current."""
    if stream is not None:
        torch.accelerator.set_stream(stream)
