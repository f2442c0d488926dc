"""The fields that Bakeoff adds to Locust's start form and command line."""

from __future__ import annotations

from locust.argument_parser import LocustArgumentParser

from loadgen.endpoints.seats import read_seats


def add_arguments(parser: LocustArgumentParser) -> None:
    """Add the fields. They show in the form in this order, each as its name and its help text in brackets.

    On a phone about 40 characters of both can be seen.

    The last ones are set by the campaign only.
    """
    seats = [seat.name for seat in read_seats()]
    parser.add_argument(
        "--engine",
        choices=seats or ["none"],
        default=seats[0] if seats else "none",
        help="under test",
        include_in_web_ui=True,
    )
    for flag, default, text in (
        ("--prompt-tokens", 64, "of each request"),
        ("--output-tokens", 32, "of each request"),
        ("--requests", 50, "to measure; 0: until stopped"),
        ("--warmup-requests", 1, "of each user; with a rate, of all"),
        ("--shared-prefix-tokens", 0, "of all requests"),
    ):
        parser.add_argument(flag, type=int, default=default, help=text, include_in_web_ui=True)
    rate = "requests a second, not by users; 0: by users"
    parser.add_argument("--rate", type=float, default=0.0, help=rate, include_in_web_ui=True)
    arrivals = ["poisson", "constant"]
    parser.add_argument("--arrival", choices=arrivals, default="poisson", help="with a rate", include_in_web_ui=True)
    parser.add_argument("--seed", type=str, default="", help="empty: new prompts each time")
    for flag in ("--scenario", "--run-id", "--block", "--cell", "--timeouts", "--plan"):
        parser.add_argument(flag, type=str, default="", help="Set by `bakeoff bench`", include_in_web_ui=False)
