"""The one exception tree: what SkyTorch itself raises, whichever room noticed.

    SkyTorchError (RuntimeError)
    |-- InternalError            a bug in SkyTorch: please report it
    |-- InvalidArgument          also a ValueError: an argument that cannot be used
    |   `-- DeviceNotFound       the server has no such device
    |-- Unreachable (also a ConnectionError)        nobody answers at the address
    |-- ConnectionLost (also a ConnectionError)     the server or the link died under a session
    |-- Unauthenticated          the token is missing or wrong
    |-- Forbidden (also a PermissionError)          the cluster does not let this account do it
    |-- ServerBusy               the server already has its session
    |-- VersionMismatch          client and server do not speak the same wire version
    |-- NotSupported (also a NotImplementedError)   an operator, dtype or feature that does not exist remotely
    |-- ProtocolError            bytes that break the wire's rules
    |-- LimitExceeded            something larger than a named limit
    |-- SessionClosed            use of a device or tensor whose session has ended
    |   `-- ForkedSession        use, in a forked child, of the parent's session
    |-- Timeout (also a TimeoutError)               something did not happen in the time given
    |   `-- ComputeNotReady      a Compute was not ready in time
    `-- ComputeFailed            a Compute can never become ready; the message says why

A failure of an operator on the server is not in the tree: it keeps torch's own type (IndexError,
torch.OutOfMemoryError, ...), as on any other device. An interrupted wait is KeyboardInterrupt.
The subtle thing: `CODES` carries the numbers of the wire's `ErrorCode`; a test holds the two and the Rust codes
together. This module imports nothing of SkyTorch and imports torch only to raise one of its exceptions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

# The tree, which `skytorch` and `skytorch.client` export too.
__all__ = [
    "ComputeFailed",
    "ComputeNotReady",
    "ConnectionLost",
    "DeviceNotFound",
    "Forbidden",
    "ForkedSession",
    "InternalError",
    "InvalidArgument",
    "LimitExceeded",
    "NotSupported",
    "ProtocolError",
    "ServerBusy",
    "SessionClosed",
    "SkyTorchError",
    "Timeout",
    "Unauthenticated",
    "Unreachable",
    "VersionMismatch",
]


class SkyTorchError(RuntimeError):
    """Base of everything that SkyTorch raises of its own."""


class InternalError(SkyTorchError):
    """SkyTorch broke one of its own rules. Please report it with the message."""


class InvalidArgument(SkyTorchError, ValueError):
    """An argument that cannot be used; the message names it."""


class DeviceNotFound(InvalidArgument):
    """The server has no such device; the message names those that it has."""


class Unreachable(SkyTorchError, ConnectionError):
    """No server answers at the address."""


class ConnectionLost(SkyTorchError, ConnectionError):
    """The server process died, or the link stayed broken: the session and its tensors are gone."""

    # Set by the client: what its providers know of servers that are gone. It may wait a moment for the news.
    explain: ClassVar[Callable[[], str]] = staticmethod(lambda: "")

    def __init__(self, message: str = "") -> None:
        why = "" if "; compute " in message else type(self).explain()
        super().__init__(f"{message}; {why}" if why else message)


class Unauthenticated(SkyTorchError):
    """The token is missing or wrong."""


class Forbidden(SkyTorchError, PermissionError):
    """The cluster does not let this account do it; the message names the verb, the resource and the namespace."""


class ServerBusy(SkyTorchError):
    """The server already serves its session; the message says since when."""


class VersionMismatch(SkyTorchError):
    """Client and server do not speak the same version of the wire; the message names both."""


class NotSupported(SkyTorchError, NotImplementedError):
    """An operator, dtype or feature that is not available on a remote device."""


class ProtocolError(SkyTorchError):
    """Bytes from the peer that break the rules of the wire."""


class LimitExceeded(SkyTorchError):
    """Something is larger than a limit allows; the message names the limit and its value."""


class SessionClosed(SkyTorchError):
    """The session of this device or tensor has ended."""


class ForkedSession(SessionClosed):
    """The session belongs to the process that this one was forked from."""


class Timeout(SkyTorchError, TimeoutError):
    """Something did not happen in the time given."""


class ComputeNotReady(Timeout):
    """The Compute was not ready in time; the message says what it was waiting for."""


class ComputeFailed(SkyTorchError):
    """The Compute can never become ready; the message says why."""


# Code of the wire -> class. SKY_ERR_INTERRUPTED stands for Ctrl-C, which is Python's own.
CODES: dict[int, type[BaseException]] = {
    1: InternalError,
    2: InvalidArgument,
    3: Unreachable,
    4: ConnectionLost,
    5: Unauthenticated,
    6: ServerBusy,
    7: VersionMismatch,
    8: NotSupported,
    9: ProtocolError,
    10: LimitExceeded,
    11: SessionClosed,
    12: ForkedSession,
    13: KeyboardInterrupt,
    14: Timeout,
    15: DeviceNotFound,
    32: RuntimeError,
    33: IndexError,
    34: ValueError,
    35: TypeError,
    36: NotImplementedError,
}


def class_of(code: int) -> type[BaseException]:
    """The exception class of a wire code; an unknown code (of a newer server) is an InternalError."""
    if code in (37, 38):
        import torch

        return torch.OutOfMemoryError if code == 37 else torch.linalg.LinAlgError  # type: ignore[attr-defined]
    return CODES.get(code, InternalError)


def from_code(code: int, message: str) -> BaseException:
    """The exception for a wire code, ready to be raised."""
    return class_of(code)(message)
