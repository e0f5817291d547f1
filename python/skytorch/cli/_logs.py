"""`skytorch logs` and `skytorch events`: what a server wrote, and what happened to it."""

from __future__ import annotations

import argparse
import json
from typing import Any

from skytorch import errors
from skytorch.cli._command import cluster_flags, command, use_cluster_flags
from skytorch.cli._target import is_in_cluster, resolve
from skytorch.providers import settings
from skytorch.providers.kubernetes._visit import Visit
from skytorch.providers.rundir import find


def add(commands: Any) -> None:
    """Declare the commands."""
    logs = command(
        commands,
        "logs",
        help="print a server's log",
        examples="""skytorch logs my-compute
            skytorch logs my-compute --follow""",
        run=_logs,
    )
    logs.add_argument("name", metavar="NAME", nargs="?", help="name of the Compute, if there are several")
    logs.add_argument("-f", "--follow", action="store_true", help="go on with the lines to come")
    cluster_flags(logs)
    events = command(
        commands,
        "events",
        help="print what happened to a Compute",
        examples="skytorch events my-compute",
        run=_events,
    )
    events.add_argument("name", metavar="NAME", help="name of the Compute")
    cluster_flags(events)


def _logs(given: argparse.Namespace) -> int:
    from skytorch.providers.address import remote_logs

    use_cluster_flags(given)
    if given.name is not None and is_in_cluster(given.name):  # its pod's log, which is there when no server answers
        with Visit(settings.cluster()) as visit:
            for line in visit.logs(given.name, follow=given.follow):
                print(line, flush=given.follow)
        return 0
    with resolve(given.name) as (_, endpoint):
        for line in remote_logs(endpoint, follow=given.follow):
            print(line, flush=given.follow)
    return 0


def _events(given: argparse.Namespace) -> int:
    use_cluster_flags(given)
    if settings.choose(None) == "address":
        raise errors.NotSupported("a server named by its address keeps none: use `skytorch logs`")
    if is_in_cluster(given.name):
        with Visit(settings.cluster()) as visit:
            for event in visit.events(given.name):
                times = f" (x{event.count})" if event.count > 1 else ""
                time = event.timestamp.strftime("%Y-%m-%dT%H:%M:%S")
                print(f"{time}  {event.type:8}{event.reason:20}{event.message}{times}")
        return 0
    path = find(given.name).path / "events"
    for line in path.read_text().splitlines() if path.exists() else []:
        event = json.loads(line)
        print(f"{event['timestamp'][:19]}  {event['type']:8}{event['reason']:10}{event['message']}")
    return 0
