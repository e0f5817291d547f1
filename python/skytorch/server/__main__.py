"""`python -m skytorch.server`. The parent is watched before anything slow is imported."""

import sys

from skytorch.server._flags import parse
from skytorch.server._parent import watch_parent
from skytorch.server._signals import hold_back


def main(argv: list[str] | None = None, *, program: str = "python -m skytorch.server") -> int:
    """Serve until a signal, the parent's end, or a failure of the executor."""
    flags = parse(argv, program=program)
    hold_back()
    if flags.parent_fd is not None:
        watch_parent(flags.parent_fd, flags.parent_pid)
    from skytorch.server._process import serve

    return serve(flags)


if __name__ == "__main__":
    sys.exit(main())
