"""`bakeoff bench`: puts together scenario, engines, Locust and run folder, and shows the race as it goes."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console

from loadgen.bench.annotations import Annotations
from loadgen.bench.campaign import Campaign, make_folder
from loadgen.bench.capacity_campaign import CapacityCampaign
from loadgen.bench.card_check import check_cards
from loadgen.bench.end import resume_command, show_partial, show_whole
from loadgen.bench.engine_pages import pages_of
from loadgen.bench.listener import Listener, Listeners
from loadgen.bench.placing import Plan
from loadgen.bench.progress import BenchProgress
from loadgen.bench.running_stack import RunningStack, choose_seats, host_of, open_stack, plan_of, settle_serving
from loadgen.bench.together_campaign import Lane, Places, TogetherCampaign
from loadgen.bench.until_decided import Looks, check_looks, decider, more_repeats, plan_looks
from loadgen.boards.write import show_dashboards
from loadgen.client.floor import floor_facts
from loadgen.distributed.locust_client import LocustClient, LocustGone
from loadgen.distributed.locust_process import OwnLocust
from loadgen.endpoints.endpoint import INSPECT_LIMIT_S
from loadgen.endpoints.from_file import seats_of, told_addresses
from loadgen.endpoints.seats import Seat
from loadgen.engines.needs import without_values
from loadgen.errors import OK, UserError
from loadgen.files import check_folder, write_file
from loadgen.hosts.base import EngineHost
from loadgen.hosts.lock import STACK_LOCK, engines_held, held
from loadgen.hosts.placement import declare_places
from loadgen.machine import clock_facts, format_cpus, git_facts, host_facts, package_versions
from loadgen.message import say
from loadgen.monitoring.engine_samples import SAMPLES_FILE
from loadgen.monitoring.engine_watch import PUSHED_S, EngineWatch
from loadgen.preflight.phase import accepted_before, left_out_for, preflight_of
from loadgen.quality.phase import AnswerCheck
from loadgen.quality.result import load_quality
from loadgen.runs.folder import RunFolder
from loadgen.runs.manifest import Manifest, Session, new_run_id
from loadgen.runs.resume import find_scenario, reopen, same_endpoint, scenario_of
from loadgen.scenario.context_limit import left_out_note, limit_context
from loadgen.scenario.model import Scenario
from loadgen.validation import wrong_value

GRAFANAS_OWN_PASSWORD = "admin"  # noqa: S105 - what Grafana starts with where nobody chose one
NOT_APPLIED = say(
    "The scenario's serving settings are not applied: these engines were started by someone else. "
    "Check yourself that they are set up alike."
)
ALL_UP = say(
    "These engines were started by someone else: all stay up, and they take turns cell by cell "
    "(`between_blocks: keep`)."
)
TOGETHER = say(
    "These engines were started by someone else, so Bakeoff pins nothing: their blocks run at the same instant, and "
    "whether they have cards and cores of their own is for you to see to."
)
MOST_STARTS = 4
"""Starts of engines that run together, where nobody says how many: cards change hands between them."""


@dataclasses.dataclass(frozen=True, slots=True)
class Order:
    """A race, as the command line orders it."""

    scenario: str
    """A shipped scenario's name, a file or a run's folder; of no meaning with `resume`."""
    engines: Sequence[Seat] | None
    """Endpoints that already run; None takes the scenario's engines from the stack."""
    checkout: Path
    """Where the stack's state lies."""
    default_runs_dir: Path
    """Where runs go that neither the user nor the stack has a place for."""
    runs_dir: Path | None = None
    """Where the run folder goes; None for the stack's, or the default."""
    resume: str | None = None
    """The run to take up again, by id or folder."""
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Scenario keys to replace."""
    repeats: int | None = None
    """With `resume`: repeats that the run is to have in all; None for those that it has."""
    most_repeats: int | None = None
    """Repeat until the verdict is clear, but no more often than this; None: as the scenario says."""
    workers: int = 1
    """Locust workers of a race without the stack."""
    tell_folder: Path | None = None
    """The file that the run folder's path is written to."""
    gpu_metrics: str | None = None
    """The GPU exporter's page, where it is not the stack's."""
    accepted: frozenset[str] = frozenset()
    """Preflight checks whose blocking findings do not stop the race."""
    allowed_env: frozenset[str] = frozenset()
    """Environment variables that a scenario may have sent to endpoints."""

    @property
    def own_runs_dir(self) -> Path:
        """Where runs go that the stack has no place for."""
        return self.runs_dir or self.default_runs_dir


def run_bench(order: Order, console: Console, judge: Callable[[RunFolder], int] = lambda _: OK) -> int:
    """Run a scenario and print its table. Returns the exit code.

    Args:
        order: the race.
        console: where to show it.
        judge: holds the run against its thresholds when the race has ended by itself; what it returns comes before the
            exit code of the race.

    Raises:
        UserError: the race cannot be run, or broke off. KeyboardInterrupt: Ctrl-C, after the run was closed.
    """
    with contextlib.ExitStack() as locks:
        return _run(order, console, judge, locks)


def _run(order: Order, console: Console, judge: Callable[[RunFolder], int], locks: contextlib.ExitStack) -> int:
    old = RunFolder.find(order.own_runs_dir, order.resume) if order.resume is not None else None
    engines, checkout = order.engines, order.checkout
    if old is not None:
        manifest, scenario, said = _reopened(order, old)
        engines = _same_seats(manifest, engines or _named(scenario, order, console))
    else:
        scenario = _override(find_scenario(order.scenario), order.overrides)
        engines = engines or _named(scenario, order, console)
        if engines is not None and scenario.between_blocks == "restart":
            scenario = _override(scenario, {"between_blocks": "keep"})
    _check_starts(scenario, engines)
    if engines is not None or order.runs_dir is not None:
        check_folder(old.path.parent if old else order.own_runs_dir)
    what = f"A race ({scenario.name})"
    stack = None if engines is not None else _own_stack(order, what, locks)
    scenario = _with_starts(scenario, stack, order, old)
    host, seats, notes = _choose(scenario, stack, engines or ())
    _check_together(scenario, stack, seats)
    locks.enter_context(engines_held((seat.local_url or seat.base_url for seat in seats), what))
    check_looks(scenario, len(seats), order.most_repeats)
    if stack is not None:
        host = settle_serving(scenario, stack, seats)
    prometheus = stack.prometheus_url if stack else None
    if old is None:
        scenario, told = _leave_out(scenario, () if stack else seats, console)
        manifest = _new_manifest(scenario, stack, order)
        notes += _notes(scenario, stack, engines, told)
        manifest.messages += notes
    else:
        order, notes = dataclasses.replace(order, runs_dir=old.path.parent), said
    answers = _answer_check(scenario, seats, host, old)
    planned, clients = _planned(scenario, stack, seats)
    with _locusts(order, seats, stack, manifest.run_id, clients, console) as (locusts, where):
        folder = old or make_folder(scenario, manifest, where)
        _tell_folder(order, folder)
        manifest.resume = resume_command(folder, engines, order.workers, order.gpu_metrics)
        console.print(f"Run {manifest.run_id}: {scenario.question}", highlight=False)
        for note in notes:
            console.print(note, soft_wrap=True, highlight=False)
        try:
            with folder.locked(), _watched(stack, manifest, scenario, checkout, console) as listener:
                lanes = [Lane(locust, format_cpus(cpus)) for locust, cpus in zip(locusts, clients, strict=True)]
                make = _campaign(scenario, lanes, _places(scenario, stack, seats, planned))
                campaign = make(
                    *(scenario, seats, host, locusts[0], folder, manifest, listener),
                    preflight=preflight_of(
                        *(scenario, seats, host, order.accepted | accepted_before(manifest.parity)),
                        also=None if answers is None else answers.ask,
                    ),
                    answers=answers,
                    watch=EngineWatch(
                        pages_of(seats, manifest, stack.urls if stack else {}, order.gpu_metrics),
                        folder.path / SAMPLES_FILE,
                        linger_s=PUSHED_S if scenario.experiment is not None else 0.0,  # its counters are to be whole
                    ),
                )
                whole = campaign.run(_further(order, folder, manifest, seats, listener))
        except (KeyboardInterrupt, UserError):
            show_partial(folder, prometheus, manifest.resume, console)
            raise
    code = show_whole(folder, prometheus, whole, console)
    if prometheus:
        show_dashboards(checkout, folder, prometheus, console)
    return judge(folder) or code


def _check_starts(scenario: Scenario, engines: Sequence[Seat] | None) -> None:
    """Raise UserError where endpoints were to be started afresh."""
    if engines is not None and scenario.starts > 1:
        raise UserError(
            f"`starts: {scenario.starts}` needs engines that Bakeoff starts itself, and --engine names some that run "
            "already. Race the stack's own engines, or give --starts 1."
        )


def _notes(
    scenario: Scenario, stack: RunningStack | None, engines: Sequence[Seat] | None, told: Sequence[str]
) -> list[str]:
    """What a person should know of a new race; `told` is of what was left out."""
    notes: list[str] = []
    if engines is not None:
        notes += [TOGETHER if scenario.placement != "turns" else ALL_UP] if len(engines) > 1 else []
        notes += [NOT_APPLIED] if scenario.serving is not None or scenario.variants else []
    return [*notes, *told, *left_out_for(scenario), *_one_place(scenario, stack)]


def _named(scenario: Scenario, order: Order, console: Console) -> list[Seat] | None:
    """The endpoints that a scenario names, each of them told; None for none. Raises UserError where they may not be."""
    seats = seats_of(scenario.endpoints, scenario.engines, order.allowed_env)
    for line in told_addresses(seats or ()):
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    return seats


def _reopened(order: Order, old: RunFolder) -> tuple[Manifest, Scenario, list[str]]:
    """A run to go on with, its scenario with the repeats that it is to have, and what a person should know.

    Raises UserError where it cannot go on so.
    """
    extend = order.repeats is not None or order.most_repeats is not None
    manifest = reopen(old, host=host_facts(), git=git_facts(), command=_command(), extend=extend)
    scenario, told = scenario_of(manifest), len(manifest.messages) - 1
    if extend:
        before = scenario.repeats
        if order.repeats is not None:
            changed = more_repeats(scenario, order.repeats)
            scenario = _override(scenario, changed)
            manifest.scenario |= changed
        plan_looks(manifest, scenario.repeats, order.most_repeats, before)
    return manifest, scenario, manifest.messages[told:]


def _further(
    order: Order, folder: RunFolder, manifest: Manifest, seats: Sequence[Seat], listener: Listener
) -> Callable[[int], int] | None:
    """Who decides on further repeats; None where those of the scenario are all."""
    if order.most_repeats is None:
        return None
    return decider(folder, seats[0].name, seats[1].name, Looks(tuple(manifest.looks)), listener.message)


def _own_stack(order: Order, what: str, locks: contextlib.ExitStack) -> RunningStack:
    """The stack, held for this race. Raises UserError while another race or a test in the web UI has it."""
    usual = order.default_runs_dir
    there = usual.is_dir()  # else nothing is made before it is known that there is a stack
    if there:  # before its Locust is asked, which they keep busy
        locks.enter_context(held(usual / STACK_LOCK, what))
    stack = open_stack(order.checkout)
    if not there or stack.runs_dir.resolve() != usual.resolve():
        locks.enter_context(held(stack.runs_dir / STACK_LOCK, what))
    return stack


def _tell_folder(order: Order, folder: RunFolder) -> None:
    if order.tell_folder is not None:
        write_file(order.tell_folder, f"{folder.path}\n")


def _choose(
    scenario: Scenario, stack: RunningStack | None, engines: Sequence[Seat]
) -> tuple[EngineHost, list[Seat], list[str]]:
    """The engines to race, who starts and stops them, and what a person should know of the choice.

    Raises UserError where there are none, their cards do not allow the sizes that are asked for, or the scenario counts
    the GPUs of one that does not race.
    """
    seats, notes = choose_seats(scenario, stack) if stack is not None else (list(engines), [])
    if scenario.cost is not None:
        scenario.cost.check_engines(seat.name for seat in seats)
    if stack is not None:
        return stack.host, seats, [*notes, *check_cards(scenario, stack, seats)]
    return host_of(engines), seats, notes


def _answer_check(
    scenario: Scenario, seats: Sequence[Seat], host: EngineHost, old: RunFolder | None
) -> AnswerCheck | None:
    """What is to be asked to compare the engines' answers; None where that is off, or was done before a resume.

    Raises UserError where a file of questions cannot be read.
    """
    if scenario.quality is None:
        return None
    before = load_quality(old.path) if old is not None else None
    if before is not None and before.complete:
        return None
    return AnswerCheck(scenario.quality, scenario.seed, [seat.name for seat in seats], host.describe)


def _with_starts(scenario: Scenario, stack: RunningStack | None, order: Order, old: RunFolder | None) -> Scenario:
    """The scenario with as many starts as let cards change hands, where engines run together and nobody said a number.

    An even number, so that each engine has each card as often.
    """
    starts = min(scenario.repeats, MOST_STARTS) // 2 * 2
    if scenario.placement == "turns" or stack is None or old is not None or starts < 2:
        return scenario
    if "starts" in order.overrides or "starts" in find_scenario(order.scenario).model_fields_set:
        return scenario
    return _override(scenario, {"starts": starts})


def _check_together(scenario: Scenario, stack: RunningStack | None, seats: Sequence[Seat]) -> None:
    """Raise UserError where the engines cannot run together."""
    if scenario.placement == "turns":
        return
    key = f"`placement: {scenario.placement}`"
    if len(seats) < 2:
        raise UserError(f"{key} needs two engines or more, and this race has {', '.join(each.name for each in seats)}.")
    if stack is not None and stack.facts.get("runtime") == "docker":
        raise UserError(
            f"{key} needs engines as plain processes, or endpoints (--engine NAME=URL): a container's cores and cards "
            "are those that it was made with. Use BAKEOFF_RUNTIME=processes, or race in turns."
        )
    names = {seat.name for seat in seats}
    if scenario.placement == "both" and (taken := names & {scenario.name_together(name) for name in names}):
        raise UserError(f"{key} calls an engine {taken.pop()} itself: give that one another name.")


def _one_place(scenario: Scenario, stack: RunningStack | None) -> list[str]:
    """What a person should know where each engine keeps its card."""
    if stack is None or scenario.placement == "turns" or scenario.starts > 1:
        return []
    return [
        say(
            "There is one start of the engines, so each keeps its card and cores: what one card happens to be is in "
            "the difference between the engines. Cards change hands with `starts: 2` or more."
        )
    ]


def _planned(
    scenario: Scenario, stack: RunningStack | None, seats: Sequence[Seat]
) -> tuple[Plan | None, Sequence[Sequence[int]]]:
    """Where engines that run together run, None where nobody places them; and the cores of each Locust of the race.

    Raises UserError where there are too few GPUs.
    """
    if scenario.placement == "turns":
        return None, ((),)
    if stack is None:
        return None, ((),) * len(seats)
    found = plan_of(scenario, stack, seats)
    return found, found.clients


def _places(
    scenario: Scenario, stack: RunningStack | None, seats: Sequence[Seat], planned: Plan | None
) -> Places | None:
    if stack is None or planned is None:
        return None
    names = {seat.name: seat.stack_name for seat in seats}
    cards = {seat.name: scenario.cards_of(seat.name, seat.kind) for seat in seats}
    declare = functools.partial(declare_places, stack.checkout, host=stack.host)
    return Places(planned.slots, names, cards, declare)


def _campaign(scenario: Scenario, lanes: Sequence[Lane], places: Places | None) -> Callable[..., Campaign]:
    if scenario.placement != "turns":
        return functools.partial(TogetherCampaign, lanes=lanes, places=places)
    return Campaign if scenario.find_capacity is None else CapacityCampaign


def _new_manifest(scenario: Scenario, stack: RunningStack | None, order: Order) -> Manifest:
    now, git = time.time(), git_facts()
    manifest = Manifest(
        run_id=new_run_id(scenario.name),
        started_at=now,
        command=_command(),
        sessions=[Session(started_at=now, command=_command(), git=git)],
        prometheus_url=stack.prometheus_url if stack else None,
        host=host_facts(),
        packages=stack.packages if stack else package_versions(),
        stack=stack.facts if stack else {},
        git=git,
        clock=clock_facts(),
        floor=floor_facts(),
    )
    if order.most_repeats is not None:
        plan_looks(manifest, scenario.repeats, order.most_repeats)
    return manifest


def _command() -> list[str]:
    return without_values(["bakeoff", *sys.argv[1:]])


def _same_seats(manifest: Manifest, engines: Sequence[Seat] | None) -> Sequence[Seat] | None:
    """The endpoints of a run that is resumed, in its own order. Raises UserError where they are others than it had."""
    if manifest.stack and engines is not None:
        raise UserError("That run raced the stack's own engines: leave out --engine.")
    if not manifest.stack and engines is None:
        # The run may be from anyone, and people paste what they are told.
        own = manifest.command[:2] == ["bakeoff", "bench"]
        told = f" It was: {shlex.join(manifest.command)}" if own else ""
        raise UserError(f"That run raced endpoints: give the same options for them again.{told}")
    if engines is None:
        return None
    had = [facts.name for facts in manifest.engines if facts.together_of is None]
    given = [seat.name for seat in engines]
    if not set(had) <= set(given):
        raise UserError(f"That run raced {', '.join(had)}, and --engine names {', '.join(given)}.")
    problems: list[str] = []
    for seat in engines:
        try:
            same_endpoint(manifest, seat.inspect())
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError("\n".join(problems))
    return sorted(engines, key=lambda seat: had.index(seat.name) if seat.name in had else len(had))


def _override(scenario: Scenario, overrides: Mapping[str, Any]) -> Scenario:
    try:
        return Scenario.model_validate({**scenario.model_dump(), **overrides})
    except ValidationError as error:
        given = ", ".join(f"--{key.replace('_', '-')} {value}" for key, value in overrides.items())
        raise UserError(f"{given}: {wrong_value(error.errors()[0])}") from None


def _leave_out(scenario: Scenario, seats: Sequence[Seat], console: Console) -> tuple[Scenario, list[str]]:
    """Leave out what does not fit, and say so. Engines that already run are asked at once: better than after an hour.

    Raises UserError when nothing is left.
    """
    beyond = scenario.left_out()
    notes: list[str] = [left_out_note(scenario, beyond, say("the scenario sets a shorter context"))] if beyond else []
    problems: list[str] = []
    for seat in seats:
        words = f"{seat.name}: asking {seat.base_url} what it serves ({INSPECT_LIMIT_S:g} s at most)"
        with console.status(words) if console.is_terminal else contextlib.nullcontext():
            try:
                length = seat.inspect(lambda text: console.print(text, soft_wrap=True, markup=False)).context_length
            except UserError as error:
                problems.append(str(error))
                continue
        scenario, note = limit_context(scenario, length, seat.name)
        notes += [note] if note is not None else []
    if problems:
        raise UserError("\n".join(problems))
    return scenario, notes


@contextlib.contextmanager
def _watched(
    stack: RunningStack | None, manifest: Manifest, scenario: Scenario, checkout: Path, console: Console
) -> Iterator[Listener]:
    """Who watches the race: the terminal, and the stack's Grafana where there is one."""
    progress = BenchProgress(console)
    if stack is None or stack.grafana_url is None:
        with progress:
            yield progress
        return
    from loadgen.settings import load_settings

    password = load_settings(checkout).grafana_password or GRAFANAS_OWN_PASSWORD
    marks = Annotations(
        manifest,
        scenario.question,
        url=stack.grafana_url,
        password=password,
        checkout=checkout,
        warn=progress.message,
    )
    with progress, marks:
        yield Listeners([progress, marks])


@contextlib.contextmanager
def _locusts(
    order: Order,
    seats: Sequence[Seat],
    stack: RunningStack | None,
    run_id: str,
    clients: Sequence[Sequence[int]],
    console: Console,
) -> Iterator[tuple[list[LocustClient], Path]]:
    """The Locusts to drive, one for each of `clients` (its cores, none: not pinned), and the folder that their masters
    write runs to. Raises UserError when there is none."""
    found: list[LocustClient] = []
    where = order.own_runs_dir.resolve()
    workers = order.workers
    if stack is not None:
        if order.runs_dir is None or order.runs_dir.resolve() == stack.runs_dir:
            found, where = [stack.locust], stack.runs_dir
            workers = _workers(stack) if len(clients) > 1 else workers
        elif any(seat.local_url for seat in seats):
            raise UserError(
                f"--runs-dir: the stack's Locust writes to {stack.runs_dir}, and only it reaches the engines in their "
                "own network. Leave --runs-dir out, or set BAKEOFF_RUNS_DIR and run `make down` and `make up`."
            )
        else:
            console.print(
                f"The stack's Locust writes to {stack.runs_dir}, so this run has a Locust of its own; the stack's web "
                "UI and dashboards will not show it.",
                soft_wrap=True,
            )
    with contextlib.ExitStack() as own:
        for number, cpus in list(enumerate(clients, start=1))[len(found) :]:
            locust = own.enter_context(_own_locust(seats, where, run_id, workers, cpus, number))
            console.print(f"Locust: {locust.url}", highlight=False)
            found.append(locust)
        yield found, where


def _workers(stack: RunningStack) -> int:
    """How many workers its Locust has: as many as each further one gets. Raises UserError."""
    try:
        return max(1, stack.locust.status().workers)
    except LocustGone as error:
        raise UserError(str(error)) from None


@contextlib.contextmanager
def _own_locust(
    seats: Sequence[Seat], where: Path, run_id: str, workers: int, cpus: Sequence[int], number: int
) -> Iterator[LocustClient]:
    """A Locust of this race's own. Raises UserError when it does not start."""
    by_name = {seat.name: seat for seat in seats}
    for seat in seats:  # a block names its engine as the race does, or else as the stack does
        by_name.setdefault(seat.stack_name, seat.model_copy(update={"name": seat.stack_name, "variant_of": None}))
    name = "locust.log" if number == 1 else f"locust-{number}.log"
    # The run has no folder yet. Hidden, because what lists this folder means runs.
    log = where / f".{run_id}.{name}"
    try:
        with OwnLocust([*by_name.values()], where, log, workers, cpus) as locust:
            try:
                yield locust
            finally:
                if (where / run_id).is_dir():
                    log.replace(_unused(where / run_id / name))
    finally:
        log.unlink(missing_ok=True)  # of a run that never began: what was wrong has been said


def _unused(path: Path) -> Path:
    """`path`, or with a number where earlier sessions have left theirs."""
    names = itertools.chain([path], (path.with_stem(f"{path.stem}.{number}") for number in itertools.count(2)))
    return next(name for name in names if not name.exists())
