"""`python -m stack`."""

import sys


def main() -> None:
    """Run the command line; Ctrl-C in its first moments, while it is loaded, is no traceback either."""
    try:
        from stack.cli import main as run
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    run()


if __name__ == "__main__":
    main()
