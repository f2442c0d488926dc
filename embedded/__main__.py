"""`python -m embedded`."""

from embedded.cli import main

main()
