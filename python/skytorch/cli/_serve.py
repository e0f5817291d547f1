"""`skytorch serve`: only its line in the list of commands; the server parses its own flags (server/_flags.py)."""

from __future__ import annotations

from typing import Any

from skytorch.cli._command import command


def add(commands: Any) -> None:
    """Declare the command."""
    command(
        commands,
        "serve",
        help="serve this machine's devices to clients",
        examples="skytorch serve --uds /run/user/1000/sky.sock --token-file token",
        run=lambda given: 2,
    )
