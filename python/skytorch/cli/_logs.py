"""`skytorch logs` and `skytorch events`: what a server wrote, and what happened to it."""

from __future__ import annotations

import argparse
import json
from typing import Any

from skytorch import errors
from skytorch.cli._command import command
from skytorch.cli._target import resolve
from skytorch.providers import kubernetes, settings
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
    events = command(
        commands,
        "events",
        help="print what happened to a Compute",
        examples="skytorch events my-compute",
        run=_events,
    )
    events.add_argument("name", metavar="NAME", help="name of the Compute")


def _logs(given: argparse.Namespace) -> int:
    from skytorch.providers.address import remote_logs

    _, endpoint = resolve(given.name)
    for line in remote_logs(endpoint, follow=given.follow):
        print(line, flush=given.follow)
    return 0


def _events(given: argparse.Namespace) -> int:
    provider = settings.choose(None)
    if provider == "address":
        raise errors.NotSupported("a server named by its address keeps none: use `skytorch logs`")
    if provider == "kubernetes":
        raise kubernetes.missing()
    path = find(given.name).path / "events"
    for line in path.read_text().splitlines() if path.exists() else []:
        event = json.loads(line)
        print(f"{event['timestamp'][:19]}  {event['type']:8}{event['reason']:10}{event['message']}")
    return 0
