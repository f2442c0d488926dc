"""What a scenario file or a run's manifest may have sent, and where: it may be from anyone.

Environment variables that such a file names, or that a form does, hold what a person has on this machine. They are sent
only where that person has named them as well.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from urllib.parse import urlsplit

from loadgen.endpoints.endpoint import split_url
from loadgen.endpoints.seats import Seat, seat_of
from loadgen.engines.needs import Given, Placed
from loadgen.errors import UserError
from loadgen.machine import HOME, IN_CHECKOUT, is_loopback

OPTION, VARIABLE = "--allow-env", "BAKEOFF_ALLOW_ENV"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


def parse_allowed(given: Iterable[str]) -> frozenset[str]:
    """Read `--allow-env NAME[,NAME]`, given any number of times. Raises UserError for what is no variable's name."""
    names = _names(*given)
    for name in sorted(names):
        if not _NAME.fullmatch(name):
            raise UserError(f"{OPTION} {name}: that is no name of an environment variable.")
    return names


def allowed_here() -> frozenset[str]:
    """What the environment's `BAKEOFF_ALLOW_ENV` names."""
    return _names(os.environ.get(VARIABLE, ""))


def _names(*lists: str) -> frozenset[str]:
    return frozenset(name.strip() for each in lists for name in each.split(",") if name.strip())


def check_variables(
    wanted: Iterable[tuple[str, Given]], allowed: Callable[[], Collection[str]], where: str, remedy: str
) -> None:
    """Check that every variable that is named, and set here, may be sent.

    Args:
        wanted: where endpoints answer, and what was said of them.
        allowed: gives the names that a person has named; called where any is needed.
        where: who names the variables, as the beginning of a sentence.
        remedy: what to do, with `{names}` for the variables.

    Raises:
        UserError: one may not.
    """
    found = [(name, url) for url, given in wanted for name in given.variables]
    for name, _ in found:
        if not _NAME.fullmatch(name):
            raise UserError(f"{where} names {name!r}, which is no name of an environment variable.")
    may = allowed() if found else ()
    refused = [(name, url) for name, url in found if name not in may and os.environ.get(name)]
    if refused:
        told = ", ".join(dict.fromkeys(f"{name} to {url}" for name, url in refused))
        names = ",".join(dict.fromkeys(name for name, _ in refused))
        raise UserError(f"{where} wants environment variables to be sent: {told}. {remedy.format(names=names)}")


def seats_of(endpoints: Mapping[str, Placed], names: Iterable[str], allowed: Collection[str]) -> list[Seat] | None:
    """The endpoints of a scenario's `engines:`; None where it has none.

    Args:
        endpoints: those with a URL, by name.
        names: of all engines.
        allowed: environment variables that may be sent, beside those of `BAKEOFF_ALLOW_ENV`.

    Raises:
        UserError: only some have a URL, or a variable is named that may not be sent.
    """
    if not endpoints:
        return None
    if lacking := [name for name in names if name not in endpoints]:
        raise UserError(
            f"`engines`: {', '.join(lacking)} has no `url`, which others have: give all of them one, or none."
        )
    check_variables(
        [(split_url(placed.url)[0], placed) for placed in endpoints.values()],
        lambda: _allowed_always().union(allowed),
        "The scenario (`engines`)",
        f"If that is what you want, add {OPTION} {{names}}.",
    )
    given = {name: placed.model_dump(exclude_defaults=True) for name, placed in endpoints.items()}
    return [seat_of(name, each.pop("url"), each, f"`engines`: {name}: ") for name, each in given.items()]


def _allowed_always() -> frozenset[str]:
    """What `BAKEOFF_ALLOW_ENV` names, in the environment or in the checkout's `.env`. Raises UserError for that file.

    No other folder's `.env` counts: it may have come with the scenario.
    """
    if not IN_CHECKOUT or os.environ.get(VARIABLE):
        return allowed_here()
    from loadgen.settings import load_settings

    return _names(load_settings(HOME).allow_env)


def told_addresses(seats: Iterable[Seat]) -> Iterator[str]:
    """One line for each address beyond this machine that a file has asked, and what that gets."""
    for seat in seats:
        for url in filter(None, (seat.base_url, seat.metrics)):
            if not is_loopback(urlsplit(url).hostname):
                names = ", ".join(seat.variables) if url == seat.base_url else ""
                yield f"The scenario names {url} for {seat.name}" + (f", which is sent {names}." if names else ".")
