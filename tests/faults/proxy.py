"""A proxy between client and server that does one planned thing to one message, and passes everything else on.

Two threads for each connection, one a direction. A Plan counts the messages of each direction over all connections,
lanes and control included, and fires once. Several proxies may share a plan: a copy between two Computes passes two.
The subtle thing: "cut after" closes with a FIN, so that the message surely arrives; every other cut is a reset.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from framing import Http2, TlsRecords, Unit

RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with a RST
DELAY_S = 0.3


class Link:
    """One connection through the proxy: the client's end and the server's."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self._ends = (client, server)
        self.server_port = server.getpeername()[1]
        self.gone = threading.Event()
        self.silent = threading.Event()

    def reset(self) -> None:
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.close()

    def close(self) -> None:
        self.gone.set()
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


Send = Callable[[bytes], None]
Fault = Callable[[Link, Unit, Send], None]


def cut_before(link: Link, unit: Unit, send: Send) -> None:
    link.reset()


def cut_after(link: Link, unit: Unit, send: Send) -> None:
    send(unit.data)
    link.close()


def truncate(link: Link, unit: Unit, send: Send) -> None:
    send(unit.data[: (unit.header_bytes + len(unit.data)) // 2])
    link.reset()


def corrupt(link: Link, unit: Unit, send: Send) -> None:
    middle = (unit.header_bytes + len(unit.data)) // 2
    send(unit.data[:middle] + bytes([unit.data[middle] ^ 0x10]) + unit.data[middle + 1 :])


def duplicate(link: Link, unit: Unit, send: Send) -> None:
    send(unit.data)
    send(unit.data)


def delay(link: Link, unit: Unit, send: Send) -> None:
    link.gone.wait(DELAY_S)
    send(unit.data)


def stall(link: Link, unit: Unit, send: Send) -> None:
    """From here on the connection is open and silent, in both directions."""
    link.silent.set()
    link.gone.wait()


def stall_one_way(link: Link, unit: Unit, send: Send) -> None:
    link.gone.wait()


LINK_FAULTS: dict[str, Fault] = {
    "cut before": cut_before,
    "cut after": cut_after,
    "truncate": truncate,
    "corrupt": corrupt,
    "duplicate": duplicate,
    "delay": delay,
    "stall": stall,
    "stall one way": stall_one_way,
}


@dataclass
class Plan:
    """Which message gets which fault; without a fault it only counts."""

    fault: Fault | None = None
    direction: str = "up"
    number: int = 0
    seen: dict[str, int] = field(default_factory=lambda: {"up": 0, "down": 0})
    fired_at: float | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def fires(self, direction: str) -> bool:
        """Count a message; whether it is the one."""
        with self._lock:
            self.seen[direction] += 1
            if self.fault is None or direction != self.direction or self.seen[direction] != self.number:
                return False
            self.fired_at = time.monotonic()
            return True


class Proxy:
    """Listens on a TCP port of its own and passes on to `target` (host, port)."""

    def __init__(self, target: tuple[str, int], *, tls: bool = False) -> None:
        self._target = target
        self._framing = TlsRecords if tls else Http2
        self._listener: socket.socket | None = None
        self._port = 0
        self._links: list[Link] = []
        self.plan = Plan()
        self.dark = threading.Event()  # set: connections open, and nothing passes
        self.listen(target)
        self.address = f"{'tls' if tls else 'tcp'}://127.0.0.1:{self._port}"

    def listen(self, target: tuple[str, int]) -> None:
        """Pass on to `target` from now on."""
        self._target = target
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self._port))
            self._port = self._listener.getsockname()[1]
            threading.Thread(target=self._accept, args=(self._listener,), name="proxy", daemon=True).start()

    def refuse(self) -> None:
        """Refuse connections, as a machine does where the server's process is gone."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.shutdown(socket.SHUT_RDWR)  # wakes the thread in accept, which closing alone does not
            listener.close()

    def cut_all(self) -> int:
        """Reset every connection; how many there were."""
        links = [link for link in self._links if not link.gone.is_set()]
        self._links = []
        for link in links:
            link.reset()
        return len(links)

    def close(self) -> None:
        self.refuse()
        self.cut_all()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target)
            except OSError:
                client.close()
                continue
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link = Link(client, server)
            self._links = [known for known in self._links if not known.gone.is_set()] + [link]
            for source, sink, direction in ((client, server, "up"), (server, client, "down")):
                arguments = (link, source, sink, direction)
                threading.Thread(target=self._pass_on, args=arguments, name=f"proxy-{direction}", daemon=True).start()

    def _pass_on(self, link: Link, source: socket.socket, sink: socket.socket, direction: str) -> None:
        framing = self._framing(direction)
        try:
            while data := source.recv(1 << 18):
                for unit in framing.feed(data):
                    if link.silent.is_set() or self.dark.is_set():
                        link.gone.wait()
                    elif unit.is_message and self.plan.fires(direction):
                        self.plan.fault(link, unit, sink.sendall)
                    else:
                        sink.sendall(unit.data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            link.close()
