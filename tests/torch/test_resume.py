"""Training goes on when its connection breaks: the same weights, bit for bit, as if it had not.

The connection is cut by bytes here, every so many, lanes included; `tests/faults` does every fault to every message.
"""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
import torch
from servers import serve

pytestmark = pytest.mark.remote
CUT_AFTER = 150_000  # bytes of a connection, either way together; a multiple of it for each next one


class CuttingProxy:
    """Passes bytes on, and hangs up on both ends after so many of each of the first connections."""

    def __init__(self, port: int, cuts: int) -> None:
        self._port = port
        self._budgets: Iterator[float] = itertools.chain(
            (CUT_AFTER * number for number in range(1, cuts + 1)), itertools.repeat(float("inf"))
        )
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self.cuts = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._port))
            self._join(client, server, next(self._budgets))

    def _join(self, client: socket.socket, server: socket.socket, budget: float) -> None:
        passed = 0
        lock = threading.Lock()

        def copy(source: socket.socket, sink: socket.socket) -> None:
            nonlocal passed
            try:
                while data := source.recv(1 << 16):
                    with lock:
                        room = budget - passed
                        passed += len(data)
                        if room <= 0:
                            break
                        if passed >= budget:
                            self.cuts += 1
                    sink.sendall(data[: int(min(room, len(data)))])
                    if passed >= budget:
                        break
            except OSError:
                pass
            for end in (client, server):
                _hang_up(end)

        for ends in ((client, server), (server, client)):
            threading.Thread(target=copy, args=ends, daemon=True).start()


def _hang_up(end: socket.socket) -> None:
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it has been hung up already


def train(device: torch.device, report: Callable[[float], None]) -> list[torch.Tensor]:
    """A few steps on images that are uploaded each time; some ride in the stream, some on a lane."""
    torch.manual_seed(3)
    model = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10)).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    data = torch.Generator().manual_seed(4)
    for step in range(12):
        rows = 2000 if step % 3 == 0 else 200
        images = torch.rand(rows, 64, generator=data).to(device)
        labels = torch.randint(0, 10, (rows,), generator=data).to(device)
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        report(loss.item())
    return [parameter.detach().cpu() for parameter in model.parameters()]


def test_training_through_cuts_gives_the_same_weights(tmp_path):
    from skytorch.client import Compute, init

    losses: tuple[list[float], list[float]] = ([], [])
    with serve(tmp_path, "--host", "127.0.0.1", "--port", "0") as served:
        port = int(served.address.rpartition(":")[2])
        proxy = CuttingProxy(port, cuts=6)
        weights = []
        try:
            for address, seen in ((served.address, losses[0]), (proxy.address, losses[1])):
                init(provider="address", address=address, token=served.token)
                with Compute("resume", provider="address") as node:
                    weights.append(train(node.device(), seen.append))
        finally:
            init()
            proxy.close()
    assert proxy.cuts >= 3
    assert losses[0] == losses[1]
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))
