"""What the exit codes of `python -m loadgen` mean. docs/compare.md has them command by command."""

OK = 0
NOT_WHOLE = 1
"""Requests failed, or not all was measured."""
WRONG_USAGE = 2
THRESHOLD_FAILED = 3
UNDECIDED = 4
"""No threshold failed, and one is undecided."""
PREFLIGHT_REFUSES = 5
CLIENT_LIMITED = 6
"""All went well, but nothing can be judged: the load generator was the limit."""
INTERRUPTED = 130
