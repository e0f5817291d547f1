"""A TCP relay that holds every byte back for a while: a server that is milliseconds away, on this machine.

It delays and does not limit: bytes that arrive together leave together. A thread reads and a thread writes each
direction of a connection, so that what is held back never holds up what comes behind it.
"""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
import time
from collections.abc import Iterator

PIECE = 1 << 20


def _take(source: socket.socket, held: queue.SimpleQueue[tuple[float, bytes]], delay_s: float) -> None:
    while True:
        try:
            data = source.recv(PIECE)
        except OSError:
            data = b""
        held.put((time.monotonic() + delay_s, data))
        if not data:
            return


def _give(sink: socket.socket, held: queue.SimpleQueue[tuple[float, bytes]]) -> None:
    with contextlib.suppress(OSError):
        while True:
            due, data = held.get()
            time.sleep(max(0.0, due - time.monotonic()))
            if not data:
                sink.shutdown(socket.SHUT_WR)
                return
            sink.sendall(data)


def _accept(listener: socket.socket, target: tuple[str, int], delay_s: float) -> None:
    while True:
        try:
            ends = (listener.accept()[0], socket.create_connection(target))
        except OSError:
            return
        for end in ends:
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for source, sink in (ends, ends[::-1]):
            held: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
            threading.Thread(target=_take, args=(source, held, delay_s), daemon=True).start()
            threading.Thread(target=_give, args=(sink, held), daemon=True).start()


@contextlib.contextmanager
def delayed(address: str, delay_s: float) -> Iterator[str]:
    """The address of a relay to the server at `address` (tcp://HOST:PORT), `delay_s` away in each direction."""
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=_accept, args=(listener, (host, int(port)), delay_s), daemon=True).start()
    try:
        yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
