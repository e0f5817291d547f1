"""The small HTTP endpoint beside the server: `/metrics` for Prometheus, `/status` for an operator.

It has no token and no TLS, since a scraper has neither: it answers GET of these two, says nothing that is a secret,
and has a bounded number of connections, of which the oldest makes room for a new one. On threads of its own: neither
a session nor a long operator holds it up.
"""

from __future__ import annotations

import contextlib
import json
import socket
import socketserver
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from skytorch.server._metrics import Row
from skytorch.server._prometheus import exposition

CONNECTIONS = 16
TIMEOUT_S = 5.0


class _Server(ThreadingHTTPServer):
    """One thread for each of at most `CONNECTIONS` connections; one more ends the oldest."""

    daemon_threads = True

    def __init__(self, host: str, port: int, handler: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        super().__init__((host, port), handler)

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # HTTPServer's own asks DNS for our name, which a pod may wait for

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            if len(self._open) >= CONNECTIONS:
                with contextlib.suppress(OSError):
                    self._open.pop(0).shutdown(socket.SHUT_RDWR)
            self._open.append(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            if request in self._open:
                self._open.remove(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Somebody hung up: not worth a line."""


def start_endpoint(host: str, port: int, rows: Callable[[], list[Row]], status: Callable[[], dict[str, Any]]) -> str:
    """Answer from now on, until the process ends; where, as http://host:port."""

    class Handler(BaseHTTPRequestHandler):
        timeout = TIMEOUT_S

        def do_GET(self) -> None:
            if self.path == "/metrics":
                kind, body = "text/plain; version=0.0.4; charset=utf-8", exposition(rows())
            elif self.path == "/status":
                kind, body = "application/json", json.dumps(status())
            else:
                self.send_error(404, "only /metrics and /status are here")
                return
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body.encode())))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: object) -> None:
            """Scrapes are not worth a line."""

    server = _Server(host, port, Handler)
    threading.Thread(target=server.serve_forever, name="skytorch-http", daemon=True).start()
    return f"http://{f'[{host}]' if ':' in host else host}:{server.server_address[1]}"
