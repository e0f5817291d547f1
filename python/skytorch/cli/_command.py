"""How every command is declared, so that each has a description, examples and exit codes in its --help."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from skytorch.providers import settings

EXIT_CODES = "exit codes: 0 done, 1 failed (the last line says why), 2 wrong arguments, 130 interrupted"


def command(
    commands: Any, name: str, *, help: str, examples: str, run: Callable[[argparse.Namespace], int]
) -> argparse.ArgumentParser:
    """Add a command; `examples` are whole command lines."""
    lines = "\n".join(f"  {line.strip()}" for line in examples.strip().splitlines())
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=help,
        description=f"{help[0].upper()}{help[1:]}.",
        epilog=f"examples:\n{lines}\n\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def cluster_flags(parser: argparse.ArgumentParser) -> None:
    """Flags that name a cluster and a namespace, for commands that look there."""
    parser.add_argument("--context", metavar="NAME", help="context of the kubeconfig (default: its current one)")
    parser.add_argument("-n", "--namespace", metavar="NAME", help="namespace (default: the context's)")


def use_cluster_flags(given: argparse.Namespace) -> None:
    """Heed them: naming a cluster or a namespace means the provider kubernetes."""
    if given.context is not None or given.namespace is not None:
        settings.provider = "kubernetes"
        settings.context, settings.namespace = given.context, given.namespace
