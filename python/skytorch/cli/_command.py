"""How every command is declared, so that each has a description, examples and exit codes in its --help."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

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
