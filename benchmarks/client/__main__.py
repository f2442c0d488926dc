"""`python -m benchmarks.client`."""

import sys

from benchmarks.client.cli import main

if __name__ == "__main__":
    sys.exit(main())
