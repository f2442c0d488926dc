"""`python -m containers`."""

from containers.cli import main

main()
