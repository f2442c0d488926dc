"""`python -m loadgen`, and the command `bakeoff`."""

import sys


def main() -> int:
    """Run the command line and return its exit code; Ctrl-C in its first moments, while it is loaded, included."""
    try:
        from loadgen.cli.app import main as run
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130
    return run()


if __name__ == "__main__":
    sys.exit(main())
