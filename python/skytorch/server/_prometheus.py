"""Prometheus' text format for the server's measurements, and the small HTTP endpoint that answers it on loopback."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from skytorch.server._metrics import Row

_COUNTERS = ("ops.executed", "bytes.received", "bytes.sent")


def exposition(rows: Iterable[Row]) -> str:
    """The measurements as text: `skytorch_gpu_memory_used_bytes{device="cuda:0"} 1.0`."""
    families: dict[str, list[str]] = {}
    kinds: dict[str, str] = {}
    for name, value, unit, labels in rows:
        counter = name in _COUNTERS
        family = "skytorch_" + name.replace(".", "_")
        if unit not in ("", "count") and not family.endswith(f"_{unit}"):
            family += f"_{unit}"
        family += "_total" if counter else ""
        kinds[family] = "counter" if counter else "gauge"
        pairs = ",".join(f'{key}="{_escape(text)}"' for key, text in sorted(labels.items()))
        families.setdefault(family, []).append(f"{family}{{{pairs}}} {value!r}" if pairs else f"{family} {value!r}")
    lines = []
    for family, samples in families.items():
        lines += [f"# TYPE {family} {kinds[family]}", *samples]
    return "\n".join(lines) + "\n"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def start_endpoint(port: int, rows: Callable[[], list[Row]]) -> ThreadingHTTPServer:
    """Answer GET /metrics on loopback, on threads of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path != "/metrics":
                self.send_error(404, "only /metrics is here")
                return
            body = exposition(rows()).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Scrapes are not worth a line."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, name="skytorch-prometheus", daemon=True).start()
    return server
