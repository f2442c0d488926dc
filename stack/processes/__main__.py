"""`python -m stack.processes`."""

from stack.processes.cli import main

main()
