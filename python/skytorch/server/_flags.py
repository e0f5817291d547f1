"""The server's command line, and what is refused before anything starts.

A server that others could reach needs a token and TLS; the listeners for health and measurements need neither, since
nothing else is behind them. On this machine a token is enough; if none is given, one is made at the start, in a file
that only this user can read. The subtle thing: what is secret stays in its file, out of these flags, the log and the
environment; the server reads a file anew whenever it needs what is in it.
"""

from __future__ import annotations

import argparse
import ipaddress
import os
import stat
import sys
from dataclasses import dataclass, field
from pathlib import Path

from skytorch.server._limits import Limits, add_limits, read_limits

DEFAULT_PORT = 7777
EPILOG = """examples:
  skytorch serve                                   on this machine, port 7777; says where the token is that it made
  skytorch serve --uds /run/user/1000/sky.sock --token-file token
  skytorch serve --host 0.0.0.0 --token-file token --tls-cert server.pem --tls-key server.key
  skytorch serve --health 0.0.0.0:7778 --metrics-host 0.0.0.0 --metrics-port 7779        and what a pod adds

exit codes: 0 stopped by a signal, 1 a failure (the last line says which), 2 wrong arguments"""


@dataclass(frozen=True, kw_only=True)
class Flags:
    """The checked command line."""

    listen: str
    token: Path | str | None = field(repr=False)  # None: one has to be made
    tls_cert: Path | None
    tls_key: Path | None
    tls_client_ca: Path | None
    imports: tuple[str, ...]
    limits: Limits
    log_level: str
    health: str | None
    metrics_host: str
    metrics_port: int | None
    ready_fd: int | None
    parent_fd: int | None
    parent_pid: int | None


def build_parser(program: str) -> argparse.ArgumentParser:
    """The parser, for --help too."""
    parser = argparse.ArgumentParser(
        prog=program,
        description="Serve this machine's devices to one SkyTorch client at a time.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument(
        "--port", type=int, default=DEFAULT_PORT, help="port, 0 for a free one (default: %(default)s)"
    )
    parser.add_argument("--uds", type=Path, metavar="PATH", help="listen on a Unix socket instead of host and port")
    parser.add_argument("--token-file", type=Path, metavar="PATH",
                        help="file with the token that clients must show, or SKYTORCH_TOKEN; may change")  # fmt: skip
    parser.add_argument(
        "--tls-cert",
        type=Path,
        metavar="PATH",
        help="PEM certificate chain of this server; may change",
    )
    parser.add_argument("--tls-key", type=Path, metavar="PATH", help="PEM key of the certificate")
    parser.add_argument(
        "--tls-client-ca", type=Path, metavar="PATH", help="ask clients for a certificate of this authority"
    )
    parser.add_argument("--import", dest="imports", action="append", default=[], metavar="MODULE",
                        help="import MODULE first, whose operators clients may then use; repeatable")  # fmt: skip
    parser.add_argument("--health", type=_host_and_port, metavar="HOST:PORT",
                        help="answer gRPC health checks here, and nothing else, without TLS and token")  # fmt: skip
    parser.add_argument("--metrics-host", default="127.0.0.1", metavar="HOST",
                        help="address for --metrics-port (default: %(default)s)")  # fmt: skip
    parser.add_argument("--metrics-port", type=int, metavar="PORT",
                        help="answer HTTP at /metrics (Prometheus) and /status (JSON: in use? since when not?), "
                        "without TLS and token (default: off)")  # fmt: skip
    parser.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    add_limits(parser)
    for hidden in ("--ready-fd", "--parent-fd", "--parent-pid"):
        parser.add_argument(hidden, type=int, help=argparse.SUPPRESS)
    return parser


def parse(argv: list[str] | None, *, program: str) -> Flags:
    """The flags, or exit code 2 with what is wrong."""
    parser = build_parser(program)
    given = parser.parse_args(argv)

    def check(path: Path | None, option: str) -> Path | None:
        """The path, if it can be read and holds something."""
        if path is None:
            return None
        try:
            if not path.read_bytes().strip():
                parser.error(f"{option}: {path} is empty")
        except OSError as error:
            parser.error(f"{option}: {path} cannot be read: {error.strerror}")
        return path.absolute()

    # Out of the environment: what this process starts need not know it.
    token: Path | str = os.environ.pop("SKYTORCH_TOKEN", "").strip()
    token = check(given.token_file, "--token-file") or token
    if given.token_file is not None and _is_open_to_others(given.token_file):
        print(f"warning: others can read {given.token_file}: chmod 600 it", file=sys.stderr)
    if (given.tls_cert is None) != (given.tls_key is None):
        parser.error("--tls-cert and --tls-key belong together")
    if given.tls_client_ca is not None and given.tls_cert is None:
        parser.error("--tls-client-ca: clients show certificates only over TLS: add --tls-cert and --tls-key")
    if given.uds is None and not _is_loopback(given.host):
        if not token:
            parser.error(f"--host {given.host}: listening beyond this machine needs a token: add --token-file")
        if given.tls_cert is None:
            parser.error(
                f"--host {given.host}: listening beyond this machine needs TLS: add --tls-cert and --tls-key"
            )
    for option, port in (("--port", given.port), ("--metrics-port", given.metrics_port or 0)):
        if not 0 <= port < 65536:
            parser.error(f"{option}: {port} is not a port")
    host = f"[{given.host}]" if ":" in given.host else given.host
    scheme = "tls" if given.tls_cert is not None else "tcp"
    return Flags(
        listen=f"unix://{given.uds.absolute()}" if given.uds is not None else f"{scheme}://{host}:{given.port}",
        token=token or None,
        tls_cert=check(given.tls_cert, "--tls-cert"),
        tls_key=check(given.tls_key, "--tls-key"),
        tls_client_ca=check(given.tls_client_ca, "--tls-client-ca"),
        imports=tuple(given.imports),
        limits=read_limits(given),
        log_level=given.log_level,
        health=given.health,
        metrics_host=given.metrics_host,
        metrics_port=given.metrics_port,
        ready_fd=given.ready_fd,
        parent_fd=given.parent_fd,
        parent_pid=given.parent_pid,
    )


def _host_and_port(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or (":" in host) != (host[0] == "[" and host[-1] == "]") or not port.isdecimal() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT, such as 0.0.0.0:7778 or [::]:7778")
    return text


def _is_open_to_others(path: Path) -> bool:
    """Whether others can read it, or a group of a file that has been made carelessly: a mounted Secret has 0440."""
    mode = path.stat().st_mode
    return bool(mode & stat.S_IROTH or (mode & stat.S_IRGRP and mode & stat.S_IWUSR))


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
