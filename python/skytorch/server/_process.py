"""The server's life: load the executor, listen, say so, wait for a signal, stop.

The executor runs on one thread inside C++; the main thread only waits to be told to stop, so that SIGTERM ends the
process whatever an operator is doing. The subtle thing is the end: whatever thread still runs must not hold it up.
"""

from __future__ import annotations

import faulthandler
import importlib
import json
import logging
import os
import secrets
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from skytorch import errors
from skytorch._capsule import pointer_of
from skytorch._version import __version__
from skytorch.backend.library import installed_torch
from skytorch.server._executor import Executor
from skytorch.server._flags import Flags
from skytorch.server._log import start_logging
from skytorch.server._metrics import Measurements
from skytorch.server._signals import Stop

logger = logging.getLogger("skytorch.server")
STOP_TIMEOUT_S = 5.0


def serve(flags: Flags) -> int:
    """Serve until told to stop; the exit code. Signals are held back since before."""
    token = flags.token or _make_token()

    def forget_token() -> None:
        if flags.token is None and isinstance(token, Path):
            token.unlink(missing_ok=True)

    stop = Stop(before_exit=forget_token)
    faulthandler.enable()
    ring = start_logging(flags.log_level)
    started = time.monotonic()
    try:
        server, executor = _start(flags, token, ring.lines_from)
    except BaseException as error:
        forget_token()
        if not isinstance(error, (ImportError, OSError, errors.SkyTorchError)):
            raise
        print(f"skytorch: the server cannot start: {error}", file=sys.stderr)
        return 1
    stop.serving()
    address = server.addresses[0]
    logger.info("listening on %s after %.1f s", address, time.monotonic() - started)
    _announce(flags, token, address, executor.threads())
    failure: list[BaseException] = []
    worker = threading.Thread(
        target=_execute, args=(executor, server, failure), name="skytorch-executor", daemon=True
    )
    worker.start()
    stop.wait()
    server.stop()
    worker.join(STOP_TIMEOUT_S)
    if failure:
        logger.error("the executor failed: %s", failure[0])
    forget_token()
    logging.shutdown()
    sys.stdout.flush()
    os._exit(1 if failure else 0)  # an operator may still be running: its thread must not hold up the end


def _start(flags: Flags, token: Path | str, lines_from: Any) -> tuple[Any, Executor]:
    from skytorch import _wire

    torch = installed_torch()
    executor = Executor(torch)
    executor.attach(pointer_of(_wire.server_api(), b"skytorch.server_api"))
    if flags.imports:
        _import_operators(flags.imports, executor)
    executor.set_limits(flags.limits.max_memory, flags.limits.max_storages)
    devices = executor.devices()
    names = [name for name, _ in devices]
    tls = None
    if flags.tls_cert is not None:
        tls = _wire.Tls(ca=flags.tls_client_ca, cert=flags.tls_cert, key=flags.tls_key)
    server = _wire.Server(
        [flags.listen],
        devices=devices,
        token=token,
        tls=tls,
        torch_version=torch.version,
        version=__version__,
        limits=flags.limits.of_wire(),
        health=None if flags.health is None else f"tcp://{flags.health}",
    )
    cuda = any(name.startswith("cuda") for name in names)
    measurements = Measurements(executor=executor.stats, wire=server.info, cuda=cuda)
    server.set_metrics_source(measurements.rows)
    server.set_log_source(lines_from)
    if flags.metrics_port is not None:
        from skytorch.server._endpoint import start_endpoint
        from skytorch.server._status import Status

        status = Status(version=__version__, torch=torch.version, devices=names, wire=server.info)
        address = start_endpoint(flags.metrics_host, flags.metrics_port, measurements.rows, status.now)
        logger.info("metrics at %s/metrics, state at %s/status", address, address)
    server.start()
    if server.health_address is not None:
        logger.info("health at %s", server.health_address.removeprefix("tcp://"))
    return server, executor


def _import_operators(modules: tuple[str, ...], executor: Executor) -> None:
    """Import the user's modules; clients may use the operators that they register."""
    import torch

    def namespaces() -> set[str]:
        return {name.partition("::")[0] for name in torch._C._dispatch_get_all_op_names()}

    before = namespaces()
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as error:  # whatever the user's code raises
            raise ImportError(f"--import {module}: {type(error).__name__}: {error}") from error
    for namespace in namespaces() - before:
        executor.allow_namespace(namespace)


def _make_token() -> Path:
    """A new token in a file of its own that only this user can read."""
    folder = os.environ.get("XDG_RUNTIME_DIR")
    descriptor, path = tempfile.mkstemp(
        prefix="skytorch-token-", dir=folder if folder and os.path.isdir(folder) else None
    )
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_urlsafe(32))
    return Path(path)


def _announce(flags: Flags, token: Path | str, address: str, threads: int) -> None:
    """Say that it listens: to whoever started us, or to the user."""
    if flags.ready_fd is not None:
        told = {"address": address, "pid": os.getpid(), "threads": threads}
        with os.fdopen(flags.ready_fd, "w") as pipe:
            pipe.write(json.dumps(told) + "\n")
        return
    print(f"listening on {address}", flush=True)
    if flags.token is None:
        print(f"token in {token}", flush=True)


def _execute(executor: Executor, server: Any, failure: list[BaseException]) -> None:
    try:
        executor.serve(server.pointer)
    except BaseException as error:
        failure.append(error)
    finally:
        os.kill(os.getpid(), signal.SIGTERM)  # ends the wait for one
