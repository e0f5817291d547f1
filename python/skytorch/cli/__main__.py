"""`python -m skytorch.cli`, the same as the script `skytorch`."""

import sys

from skytorch.cli import main

if __name__ == "__main__":
    sys.exit(main())
