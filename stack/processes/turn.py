"""Become an engine of the stack when its turn has come: on its cores, and on GPUs whose memory is free.

Where a race has written down a place for it (`loadgen.hosts.placement`), that goes before what the options say.

`python -m stack.processes.turn --engine NAME --gpus 0 ... -- COMMAND`. Supervisor starts engines through it, so that
whoever starts one, a race or a person, gets the same. What its user can mend is one message and exit status 2.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import psutil

from exporters.nvml import GpuProcess, Memory, NotSupported, Nvml, NvmlError
from exporters.patience import Late, Patience
from loadgen.engines.model_config import read_config
from loadgen.errors import UserError
from loadgen.hosts.cards import PART, CardsOf, Chosen, card_of, choose_cards, same_card
from loadgen.hosts.container_facts import redacted_arguments
from loadgen.hosts.placement import Place, read_places
from loadgen.hosts.supervisor import SupervisorHost
from loadgen.machine import ROOT, parse_cpus
from loadgen.settings import own_variable
from stack.commands import run_command, say
from stack.engines.launching import MODEL_VARIABLE, PLACE_VARIABLE, Launch, place_facts, read_serving
from stack.gpu import ANSWER_LIMIT_S, GPU_VARIABLES, VISIBLE, known_gpus, usable_gpus
from stack.processes import strays
from stack.processes.pinning import pin

FREE_LIMIT_S = 60.0
FREE_BYTES = 1 << 30
"""A GPU is free with less than this in use: driver and display hold some."""
LOOK_EVERY_S, SAY_EVERY_S = 0.5, 5.0
SPARE_AFTER_S = 15.0
"""How long a card is waited for before an equal one stands in: memory of the engine before it is given back late."""
GIB = 1 << 30
MOST_NAMED = 3
ORDER = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
"""GPUs are counted as nvidia-smi counts them."""
OWN_NOTE = "It was started by a command of its own: serving settings of a scenario are not applied to it."


class Waiting:
    """Waits until the memory of GPUs is free.

    Args:
        nvml: the driver's library.
        limit_s: the longest wait, s.
        clock: monotonic seconds.
        pause: waits so many seconds.
    """

    def __init__(
        self,
        nvml: Nvml | None = None,
        limit_s: float = FREE_LIMIT_S,
        *,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._nvml, self._limit_s, self._clock, self._pause = nvml or Nvml(), limit_s, clock, pause
        self._patience = Patience(ANSWER_LIMIT_S)

    def wait(self, engine: str, gpus: Sequence[str], spare: Sequence[str] = ()) -> list[str]:
        """Return when all are free: they, or spare ones in place of any but the first that stay in use.

        Raises UserError that names who holds memory, or for a GPU that there is not.
        """
        limit_s = self._limit_s + ANSWER_LIMIT_S
        try:
            found = self._patience.ask("driver", "wait", lambda: self._wait(engine, gpus, spare), limit_s)
        except Late:
            raise UserError(f"the NVIDIA driver does not answer within {ANSWER_LIMIT_S:g} s") from None
        except NvmlError as error:
            raise UserError(f"the NVIDIA driver does not answer: {error.kind}") from None
        self._nvml.close()
        return found

    def _wait(self, engine: str, gpus: Sequence[str], spare: Sequence[str]) -> list[str]:
        places = self._find(engine, [*gpus, *spare])
        taken, others = list(gpus), list(spare)
        began = self._clock()
        said = began - SAY_EVERY_S
        while held := {name: text for name in taken if (text := self._held(places.get(name)))}:
            waited = self._clock() - began
            for name in [name for name in taken[1:] if name in held] if waited >= SPARE_AFTER_S else []:
                if free := [other for other in others if not self._held(places.get(other))]:
                    say(f"note: {held[name]}, so GPU {free[0]} is taken in its place")
                    taken[taken.index(name)] = free[0]
                    others.remove(free[0])
                    del held[name]
            if not held:
                break
            text = next(iter(held.values()))
            if waited >= self._limit_s:
                raise UserError(
                    f"{text} after {waited:.0f} s of waiting. End what holds it, or give {engine} another GPU "
                    f"({_variable(engine)})" + _fewer(taken, held)
                )
            if self._clock() - said >= SAY_EVERY_S:
                said = self._clock()
                say(f"waiting: {text}")
            self._pause(LOOK_EVERY_S)
        return taken

    def _find(self, engine: str, gpus: Sequence[str]) -> dict[str, int]:
        """The index of each by its name; one that is a part of a card (MIG) has none, and is not waited for."""
        count = self._nvml.open()
        uuids = [self._nvml.uuid(self._nvml.handle(index)) for index in range(count)]
        found = {}
        for name in gpus:
            matching = [index for index in range(count) if name in (str(index), uuids[index])]
            matching = matching or [index for index in range(count) if uuids[index].startswith(name)]
            if name.startswith(PART):
                say(f"note: whether {name} is free is not looked at: it is a part of a card")
            elif not matching:
                here = ", ".join(f"{index} ({uuid})" for index, uuid in enumerate(uuids)) or "none"
                raise UserError(f"{_variable(engine)}: there is no GPU {name}; there are {here}")
            else:
                found[name] = matching[0]
        return found

    def _held(self, index: int | None) -> str:
        """That a GPU's memory is held and by whom, in words; empty where it is free, or does not say."""
        if index is None:
            return ""
        handle = self._nvml.handle(index)
        try:
            memory = self._nvml.memory(handle)
        except NotSupported:
            return ""
        if memory.used is None or memory.used < FREE_BYTES:
            return ""
        return _words(f"GPU {index} ({self._nvml.name(handle)})", memory, self._processes(handle))

    def _processes(self, handle: object) -> list[GpuProcess]:
        with contextlib.suppress(NvmlError):
            return self._nvml.processes(handle)
        return []


def _fewer(taken: Sequence[str], held: Mapping[str, str]) -> str:
    """How many of several cards are free, for who would do with fewer; empty of one card."""
    return f", or ask for fewer: {len(taken) - len(held)} of its {len(taken)} are free" if taken[1:] else ""


def _words(gpu: str, memory: Memory, processes: Sequence[GpuProcess]) -> str:
    total = f" of {memory.total / GIB:.1f}" if memory.total else ""
    text = f"{gpu} has {(memory.used or 0) / GIB:.1f}{total} GiB of its memory in use"
    largest = sorted(processes, key=lambda one: one.used or 0, reverse=True)
    named = [_holder(one) for one in largest[:MOST_NAMED]]
    more = f" and {len(processes) - len(named)} more" if len(processes) > len(named) else ""
    return f"{text}, by {', '.join(named)}{more}" if named else f"{text}, by no process that the driver names"


def _holder(one: GpuProcess) -> str:
    used = "" if one.used is None else f" with {one.used / GIB:.1f} GiB"
    try:
        return f"{strays.name_of(psutil.Process(one.pid))}{used}"
    except psutil.Error:
        return f"process {one.pid}, which cannot be seen from here,{used}"


def _variable(engine: str) -> str:
    return GPU_VARIABLES.get(engine) or own_variable(engine, "GPUS")


def beside(engine: str, gpus: Sequence[str], places: Mapping[str, Place]) -> list[str]:
    """The other engines of the stack that run on purpose, and may be on these GPUs: a scenario keeps them up."""
    with contextlib.suppress(UserError):
        others = [name for name in SupervisorHost.of_checkout(ROOT).running() if name != engine]
        return [name for name in others if engine not in places or not _apart(gpus, places.get(name, Place()).gpus)]
    return []


def _apart(gpus: Sequence[str], others: Sequence[str]) -> bool:
    """Whether GPUs are known to be others than these."""
    here = known_gpus()
    return bool(others) and not any(same_card(one, other, here) for one in gpus for other in others)


def take_place(options: argparse.Namespace) -> tuple[dict[str, str], dict[str, Any]]:
    """Go to the engine's cores, memory and GPUs, and wait until these are free. Raises UserError.

    Returns the variables that hold the engine there, and what was done, for the launch record.
    """
    places = read_places(ROOT)
    place = places.get(options.engine, Place())
    try:
        cpus = parse_cpus(place.cpus) if place.cpus else options.cpus
    except ValueError:
        raise UserError(f"{options.engine}: {place.cpus!r} is no list of cores such as 0-2,5") from None
    facts = pin(options.engine, cpus, place.memory_node)
    if not_bound := facts.get("memory_not_bound"):
        say(f"note: memory is not kept on node {place.memory_node}: {not_bound}")
    chosen = choose(options, place)
    if not chosen.gpus:
        return {}, facts
    if chosen.note:
        say(f"note: {chosen.note}")
    gpus = list(chosen.gpus)
    if others := beside(options.engine, gpus, places):
        say(f"note: {', '.join(others)} is kept up beside it, so memory on GPU {','.join(gpus)} is not waited for")
    else:
        gpus = Waiting(limit_s=options.free_limit).wait(options.engine, gpus, chosen.spare)
    # By index: vLLM before 0.30 cannot read a UUID where it deals GPUs out to copies. A part of a card has none.
    found = {name: card_of(name, known_gpus()) for name in gpus}
    facts["gpu_uuids"] = [card.uuid for card in found.values() if card is not None]
    visible = ",".join(name if card is None else str(card.index) for name, card in found.items())
    return {VISIBLE: visible, **ORDER}, facts


def choose(options: argparse.Namespace, place: Place) -> Chosen:
    """The GPUs of this start, none on a CPU: for the sizes that serving settings ask for. Raises UserError."""
    given = place.gpus or tuple(name for name in options.gpus.split(",") if name)
    named = bool(place.gpus) or options.named
    variables = dict(each.partition("=")[::2] for each in options.set)
    if not given:
        return Chosen(())
    seat = CardsOf(options.engine, options.kind, given, named, _variable(options.engine), usable_gpus())
    return choose_cards(seat, read_serving(), known_gpus(), read_config(variables.get(MODEL_VARIABLE, "")))


def become(options: argparse.Namespace) -> NoReturn:
    """Wait for the turn, and replace this process by the engine. Raises UserError."""
    variables = dict(each.partition("=")[::2] for each in options.set)
    on_gpus, facts = take_place(options)
    variables |= on_gpus
    os.environ[PLACE_VARIABLE] = json.dumps(facts)
    program = shutil.which(options.command[0])
    if program is None:
        raise UserError(
            f"{options.command[0]}: no such program. If {options.engine} is not set up, "
            f"`.venv/bin/python -m stack setup --engine {options.engine}` does that"
        )
    if options.record:
        os.environ.update(variables)
        own = redacted_arguments(_words_of(options.command[-1]))
        Launch(own, variables, (), {"cwd": str(ROOT), **place_facts()}, (OWN_NOTE,)).record(options.record)
        Launch([program, *options.command[1:]], variables, (), {}).become(options.engine, ROOT)
    # What its environment brings beside its Python, such as ninja, is found as in an activated one.
    path = f"{Path(program).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    os.execve(program, [program, *options.command[1:]], {**os.environ, "PATH": path, **variables})  # noqa: S606 - the supervisor's own


def _words_of(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:  # the shell will say what is wrong with it
        return command.split()


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the options, and become the engine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", required=True)
    parser.add_argument("--cpus", type=parse_cpus, required=True)
    parser.add_argument("--gpus", default="", help="by nvidia-smi's index or UUID, commas between")
    parser.add_argument("--named", action="store_true", help="exactly these: no others in their place")
    parser.add_argument("--kind", default="", help="the engine's, where serving settings are applied to it")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="of its environment")
    parser.add_argument("--record", type=Path, help="where to write what is launched, if the command does not")
    parser.add_argument("--free-limit", type=float, default=FREE_LIMIT_S, help="longest wait for memory, s")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    run_command(lambda: become(options))


if __name__ == "__main__":
    main()
