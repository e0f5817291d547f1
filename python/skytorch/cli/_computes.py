"""`skytorch ls`, `suspend`, `resume` and `delete`: the Computes of this user.

A local Compute lives in the process that made it, so only `delete`, which ends its server, works from outside.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from skytorch import errors
from skytorch.cli._command import command
from skytorch.providers import kubernetes, settings
from skytorch.providers.rundir import end_process, find, live


def add(commands: Any) -> None:
    """Declare the commands."""
    command(commands, "ls", help="list the Computes that run", examples="skytorch ls", run=_ls)
    for name, help, run in (
        ("suspend", "take a Compute's server away and keep the rest", _suspend),
        ("resume", "bring a suspended Compute's server back", _suspend),
        ("delete", "delete a Compute", _delete),
    ):
        parser = command(commands, name, help=help, examples=f"skytorch {name} my-compute", run=run)
        parser.add_argument("name", metavar="NAME", help="name of the Compute")
        if name == "delete":
            parser.add_argument("--grace-period", type=float, default=30.0, metavar="SECONDS",
                                help="time to end by itself (default: %(default)s)")  # fmt: skip


def _ls(given: argparse.Namespace) -> int:
    rows = [("NAME", "PROVIDER", "STATE", "PROCESS", "AGE", "ADDRESS")]
    for found in live():
        state = "running" if found.address else "stopped"
        age = f"{max(0, time.time() - found.started_unix):.0f} s"
        rows.append((found.name, "local", state, str(found.server_pid or "-"), age, found.address or "-"))
    if settings.choose(None) == "address":
        rows.append(_address_row())
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    if settings.choose(None) == "kubernetes":
        print(f"(not listed: Computes of the cluster. {kubernetes.missing()})")
    return 0


def _address_row() -> tuple[str, str, str, str, str, str]:
    from skytorch import _wire
    from skytorch.providers.address import wire_tls

    endpoint = settings.endpoint()
    try:
        free = _wire.check_health(endpoint.address, token=endpoint.token, tls=wire_tls(endpoint.tls))
        state = "free" if free else "busy"
    except errors.SkyTorchError as error:
        state = type(error).__name__
    return ("-", "address", state, "-", "-", endpoint.address)


def _suspend(given: argparse.Namespace) -> int:
    provider = settings.choose(None)
    if provider == "kubernetes":
        raise kubernetes.missing()
    if provider == "address":
        raise errors.NotSupported("a server named by its address is run by whoever started it")
    found = find(given.name)
    raise errors.NotSupported(
        f"local compute {given.name!r} lives in process {found.holder_pid}: "
        f"call its {given.command}() there, or end it with `skytorch delete {given.name}`"
    )


def _delete(given: argparse.Namespace) -> int:
    provider = settings.choose(None)
    if provider == "address":
        raise errors.NotSupported("a server named by its address is run by whoever started it")
    if provider == "kubernetes" and given.name not in [found.name for found in live()]:
        raise kubernetes.missing()
    found = find(given.name)
    if found.server_pid is not None:
        end_process(found.server_pid, grace_period_s=given.grace_period)
    print(f"deleted {given.name} (its program in process {found.holder_pid} sees a lost connection)")
    return 0
