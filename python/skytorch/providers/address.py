"""The provider `address`: a server that somebody else runs (`skytorch serve`), named by its address.

It starts and stops nothing; `stop` and `delete` only let go. `tcp://` is for this machine or a trusted tunnel, `tls://`
for everything else, `unix://` for a socket.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from skytorch import errors
from skytorch.providers._protocol import Cancel, Condition, Endpoint, Event, OnCondition, OnEvent, Placement, TlsFiles

if TYPE_CHECKING:
    from skytorch._wire import Tls

SCHEMES = ("tcp", "tls", "unix")


class AddressProvider:
    """Hands out an endpoint that is already there."""

    def __init__(
        self, placement: Placement, endpoint: Endpoint, *, on_event: OnEvent, on_condition: OnCondition
    ) -> None:
        self._placement = placement
        self._endpoint = endpoint
        self._on_event = on_event
        self._on_condition = on_condition

    def start(self, *, timeout_s: float, cancel: Cancel) -> Endpoint:
        """Nothing to start: whether a server answers shows when the client connects."""
        self._on_condition(Condition(type="Ready", status="False", reason="Connecting"))
        self._on_event(
            Event(reason="Connecting", message=f"connecting to {self._endpoint.address}", name=self._placement.name)
        )
        return self._endpoint

    def apply_suspended(self, *, cancel: Cancel) -> None:
        """There is nothing to apply."""

    def stop(self, *, grace_period_s: float) -> None:
        """The server is not ours to stop."""

    def delete(self, *, grace_period_s: float) -> None:
        """The server is not ours to delete."""

    def logs(self, *, follow: bool) -> Iterator[str]:
        """The lines that the server keeps of its own log."""
        return remote_logs(self._endpoint, follow=follow)

    def why_lost(self) -> str | None:
        """Nothing is known of a server that somebody else runs."""
        return None


def remote_logs(endpoint: Endpoint, *, follow: bool) -> Iterator[str]:
    """The log lines of any server that can be reached."""
    from skytorch import _wire

    return iter(_wire.logs(endpoint.address, token=endpoint.token, tls=wire_tls(endpoint.tls), follow=follow))


def wire_tls(tls: TlsFiles | None) -> Tls | None:
    """The credentials in the form that `skytorch._wire` takes."""
    from skytorch import _wire

    if tls is None:
        return None
    return _wire.Tls(ca=tls.ca, cert=tls.cert, key=tls.key, server_name=tls.server_name)


def check_address(address: str) -> str:
    """The address, or an error that names what is wrong with it."""
    scheme, found, rest = address.partition("://")
    if not found or scheme not in SCHEMES:
        raise errors.InvalidArgument(f"address: {address!r} must be tcp://HOST:PORT, tls://HOST:PORT or unix:///PATH")
    if scheme == "unix":
        if not rest.startswith("/"):
            raise errors.InvalidArgument(f"address: the path in {address!r} must be absolute: unix:///run/sky.sock")
        return address
    host, colon, port = rest.rpartition(":")
    if not (host and colon and port.isdigit() and 0 < int(port) < 65536):
        raise errors.InvalidArgument(f"address: {address!r} needs a host and a port from 1 to 65535")
    return address
