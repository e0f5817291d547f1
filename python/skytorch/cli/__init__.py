"""The command line `skytorch`: one module per group of commands, each of which adds its parsers.

Exit codes are the same everywhere: 0 done, 1 it failed (the last line says why and what to do), 2 wrong arguments,
130 interrupted. No command imports torch unless it needs it.
"""

from __future__ import annotations

import argparse
import sys

from skytorch import errors
from skytorch._version import __version__
from skytorch.cli._command import EXIT_CODES


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    from skytorch.cli import _bench, _build, _computes, _doctor, _logs, _serve, _top

    parser = argparse.ArgumentParser(
        prog="skytorch",
        description="Ordinary PyTorch here, tensors and operators elsewhere.",
        epilog="`skytorch COMMAND --help` shows examples. " + EXIT_CODES,
    )
    parser.add_argument("--version", action="version", version=f"skytorch {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for module in (_serve, _computes, _top, _logs, _build, _doctor, _bench):
        module.add(commands)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one command."""
    words = sys.argv[1:] if argv is None else argv
    if words[:1] == ["serve"]:  # the server parses its own flags
        from skytorch.server.__main__ import main as serve

        return serve(words[1:], program="skytorch serve")
    given = build_parser().parse_args(words)
    try:
        code: int = given.run(given)
        return code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 0
    except (errors.SkyTorchError, ImportError) as error:
        print(f"skytorch {given.command}: {error}", file=sys.stderr)
        return 1
