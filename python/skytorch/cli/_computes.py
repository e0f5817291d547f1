"""`skytorch ls`, `suspend`, `resume` and `delete`: the Computes of this user, here and in the cluster.

A local Compute lives in the process that made it, so only `delete`, which ends its server, works from outside. One of
the cluster is an object that everybody with the right to may change; the program that holds it learns of it.
"""

from __future__ import annotations

import argparse
import time
from datetime import datetime
from typing import Any

from skytorch import errors
from skytorch.cli._command import cluster_flags, command, use_cluster_flags
from skytorch.cli._target import is_in_cluster
from skytorch.providers import settings
from skytorch.providers.kubernetes._visit import Visit
from skytorch.providers.rundir import end_process, find, live

HEADINGS = ("NAME", "PROVIDER", "STATE", "SERVER", "HOLDER", "AGE", "ADDRESS")
Row = tuple[str, str, str, str, str, str, str]


def add(commands: Any) -> None:
    """Declare the commands."""
    listing = command(
        commands,
        "ls",
        help="list the Computes that run",
        examples="""skytorch ls
            skytorch ls --namespace research""",
        run=_ls,
    )
    cluster_flags(listing)
    for name, help, run in (
        ("suspend", "take a Compute's server away and keep the rest", _suspend),
        ("resume", "bring a suspended Compute's server back", _suspend),
        ("delete", "delete a Compute", _delete),
    ):
        parser = command(commands, name, help=help, examples=f"skytorch {name} my-compute", run=run)
        parser.add_argument("name", metavar="NAME", help="name of the Compute")
        cluster_flags(parser)
        if name == "delete":
            parser.add_argument("--grace-period", type=float, default=30.0, metavar="SECONDS",
                                help="time to end by itself (default: %(default)s)")  # fmt: skip


def _ls(given: argparse.Namespace) -> int:
    use_cluster_flags(given)
    rows: list[Row] = [HEADINGS]
    for found in live():
        state = "running" if found.address else "stopped"
        server = f"process {found.server_pid}" if found.server_pid else "-"
        holder = f"process {found.holder_pid}"
        rows.append((found.name, "local", state, server, holder, _age(found.started_unix), found.address or "-"))
    provider = settings.choose(None)
    if provider == "address":
        rows.append(_address_row())
    if provider == "kubernetes":
        with Visit(settings.cluster()) as visit:
            rows += [_cluster_row(found) for found in visit.computes()]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEADINGS))]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _cluster_row(found: dict[str, Any]) -> Row:
    from skytorch.providers.kubernetes._lease import owner_of
    from skytorch.providers.kubernetes._state import verdict

    metadata, status, owner, stands = found["metadata"], found.get("status", {}), owner_of(found), verdict(found)
    state = stands.kind if stands.kind in ("ready", "suspended") else stands.reason or stands.kind
    return (
        metadata["name"],
        "kubernetes",
        state,
        f"pod {status['podName']}" if status.get("podName") else "-",
        f"process {owner['process']} on {owner['host']}" if owner else "-",
        _age(datetime.fromisoformat(metadata["creationTimestamp"]).timestamp()),
        status.get("address") or "-",
    )


def _address_row() -> Row:
    from skytorch import _wire
    from skytorch.providers.address import wire_tls

    endpoint = settings.endpoint()
    try:
        free = _wire.check_health(endpoint.address, token=endpoint.token, tls=wire_tls(endpoint.tls))
        state = "free" if free else "busy"
    except errors.SkyTorchError as error:
        state = type(error).__name__
    return ("-", "address", state, "-", "-", "-", endpoint.address)


def _age(since_unix: float) -> str:
    return f"{max(0, time.time() - since_unix):.0f} s"


def _suspend(given: argparse.Namespace) -> int:
    use_cluster_flags(given)
    if settings.choose(None) == "address":
        raise errors.NotSupported("a server named by its address is run by whoever started it")
    if is_in_cluster(given.name):
        with Visit(settings.cluster()) as visit:
            visit.suspend(given.name, given.command == "suspend")
            done = "suspended" if given.command == "suspend" else "resumed"
            print(f"{done} {given.name} in namespace {visit.namespace}")
        return 0
    found = find(given.name)
    raise errors.NotSupported(
        f"local compute {given.name!r} lives in process {found.holder_pid}: "
        f"call its {given.command}() there, or end it with `skytorch delete {given.name}`"
    )


def _delete(given: argparse.Namespace) -> int:
    use_cluster_flags(given)
    if settings.choose(None) == "address":
        raise errors.NotSupported("a server named by its address is run by whoever started it")
    if is_in_cluster(given.name):
        with Visit(settings.cluster()) as visit:
            visit.delete(given.name, given.grace_period)
            print(f"deleted {given.name} in namespace {visit.namespace}")
        return 0
    found = find(given.name)
    if found.server_pid is not None:
        end_process(found.server_pid, grace_period_s=given.grace_period)
    print(f"deleted {given.name} (its program in process {found.holder_pid} sees a lost connection)")
    return 0
