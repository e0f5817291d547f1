"""`skytorch._wire`: the Rust wire core as Python sees it. Built from crates/skytorch-py; a test compares the two.

Every call that may wait gives up the GIL and lets Ctrl-C through. What goes wrong is raised as a class of
`skytorch.errors`. Addresses are "unix:///path", "tcp://host:port" or "tls://host:port". A credential given as a path
is a file that is read anew for each use. The subtle thing is `pointer`: C++ keeps a Session alive by itself, but only
borrows a Server, which must outlive its `serve`.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, final

# (name, value, unit, labels)
_Metric = tuple[str, float, str, dict[str, str]]

def client_api() -> Any:
    """The client's C table, as a capsule named "skytorch.client_api"."""

def server_api() -> Any:
    """The server's C table, as a capsule named "skytorch.server_api"."""

def take_raised() -> BaseException | None:
    """What a signal handler raised during this thread's last wait in C++, once; None if none did."""

@final
class Tls:
    """PEM texts or files of a TLS link: `ca` to trust, `cert` and `key` to show, `server_name` to expect."""

    def __new__(
        cls,
        ca: bytes | Path | None = None,
        cert: bytes | Path | None = None,
        key: bytes | Path | None = None,
        server_name: str | None = None,
    ) -> Tls: ...

def connect(
    address: str,
    *,
    token: str | Path | None = None,
    tls: Tls | None = None,
    timeout_s: float = 30.0,
    client: str = "",
    torch_version: str = "",
    bulk_checksum: bool = True,
    peer_address: str | None = None,
) -> Session:
    """Open a session with the server at `address`; `client` describes this program to people.

    `bulk_checksum` covers large uploads on plain TCP with a CRC32C; TLS and Unix sockets need none. `peer_address` is
    how other servers reach this one, where that is not `address`: they expect the same certificate there.
    """

@final
class Session:
    """A session with a server. Made by `connect`. Dropping it neither flushes nor waits; `close` does both."""

    @property
    def pointer(self) -> int:
        """Address of the session for `torch.ops.skytorch.open_device`, which keeps it alive."""

    @property
    def devices(self) -> list[tuple[str, str]]:
        """The server's devices ("cpu", "cuda:0") with a label each; the position is the device's number."""

    @property
    def server_info(self) -> dict[str, Any]:
        """What the server said of itself: version, torch_version, wire_version, pid."""

    @property
    def session_id(self) -> str:
        """Names the session in logs; it opens nothing."""

    @property
    def is_open(self) -> bool:
        """False after `close`, after the server's end, and in a forked child."""

    def stats(self) -> dict[str, int]:
        """Counters: ops, records, templates, messages, op_bytes_sent, lane_bytes_sent, bytes_received, reads."""

    def take_failure(self, timeout_s: float | None = None) -> None:
        """Wait for what was issued; raises the first failure that nobody has read. Timeout after `timeout_s`."""

    def close(self, timeout_s: float = 60.0) -> None:
        """Send what is left, wait for the server's goodbye, and end the session. A second call does nothing."""

@final
class Server:
    """A server that listens from `start` to `stop`. The addresses are bound when it is made.

    `limits` may have max_connections (control and lanes included), max_pending (connections without a token so far),
    slots (of templates), queue_bytes (of one connection), auth_timeout_ms and resume_timeout_ms. `bulk_checksum`
    covers large answers on plain TCP with a CRC32C. `health` is a "tcp://host:port" that answers grpc.health.v1 and
    nothing else, to whoever asks.
    """

    def __new__(
        cls,
        listen: Sequence[str],
        *,
        devices: Sequence[tuple[str, str]],
        token: str | Path | None = None,
        tls: Tls | None = None,
        torch_version: str = "",
        version: str = "",
        limits: Mapping[str, int] | None = None,
        bulk_checksum: bool = True,
        health: str | None = None,
    ) -> Server: ...
    @property
    def addresses(self) -> list[str]:
        """Where it listens, with the ports that were found for port 0."""

    @property
    def health_address(self) -> str | None:
        """Where probes of health are answered without TLS and token."""

    @property
    def pointer(self) -> int:
        """Address of the server for the executor's `serve`."""

    def start(self) -> None:
        """Listen. Sessions wait until the executor accepts them."""

    def stop(self) -> None:
        """Say NOT_SERVING, then end the session, hang up on everybody and stop listening; `health_address` goes on to
        answer until the end of this object. A second call does nothing."""

    def set_metrics_source(self, source: Callable[[], Sequence[_Metric]] | None) -> None:
        """The callable that answers the present measurements. Called on control threads, several at once."""

    def set_log_source(self, source: Callable[[int], tuple[int, Sequence[str]]] | None) -> None:
        """The callable that answers the log lines from an index on, and the index of the first (later than asked for
        where older lines are gone). Called on control threads, several at once."""

    def info(self) -> dict[str, Any]:
        """session_active, session_age_s, idle_s, and counters of sessions, connections, bytes and messages.

        `connected`: the session has a connection now, which one that may be resumed has not. `unused_s`: since a
        session last had one, or since the start.
        """

def check_health(
    address: str, *, token: str | Path | None = None, tls: Tls | None = None, timeout_s: float = 5.0
) -> bool:
    """True when the server can take a session, false when it answers that it cannot; raises if it does not answer."""

def metrics(
    address: str,
    *,
    token: str | Path | None = None,
    tls: Tls | None = None,
    interval_s: float = 1.0,
    timeout_s: float = 30.0,
) -> Snapshots:
    """The server's snapshots, one at once and then one every `interval_s`."""

def logs(
    address: str,
    *,
    token: str | Path | None = None,
    tls: Tls | None = None,
    follow: bool = False,
    timeout_s: float = 30.0,
) -> Logs:
    """The log lines that the server keeps; with `follow`, also those to come."""

@final
class Snapshots:
    """Iterator of (unix time in seconds, measurements), until the server stops or `close`."""

    def __iter__(self) -> Snapshots: ...
    def __next__(self) -> tuple[float, list[_Metric]]: ...
    def close(self) -> None:
        """Hang up; a `next` that waits in another thread ends."""

@final
class Logs:
    """Iterator of log lines, until there are no more, the server stops, or `close`."""

    def __iter__(self) -> Logs: ...
    def __next__(self) -> str: ...
    def close(self) -> None:
        """Hang up; a `next` that waits in another thread ends."""
