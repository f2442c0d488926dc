"""Reads scenario files: YAML whose mistakes are told with file, line, key and a hint."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent, ScalarEvent

from loadgen.errors import UserError
from loadgen.files import read_regular
from loadgen.scenario.model import OPEN_LOOP_WARMUP, Scenario
from loadgen.scenario.trace import read_trace
from loadgen.validation import wrong_value

SHIPPED = Path(__file__).parent / "shipped"
MAX_BYTES, MAX_VALUES, MAX_DEPTH = 256 << 10, 10_000, 30
MAX_BITS = 1 << 12
"""Of a whole number: Python writes none of over 4,300 digits, which YAML may have in hexadecimal."""
MAX_TOLD = 20
"""Mistakes of one file."""
TOO_DEEP = f"not a scenario: it is nested deeper than {MAX_DEPTH}"
TOO_MANY = f"not a scenario: it has more than {MAX_VALUES:,} values"
NO_TEXT = "is no text file. Give a scenario's .yaml file or a run's folder."


GROUPS = ("internals",)
"""Of scenarios that belong together, each a folder."""


def shipped_scenarios(group: str = "") -> list[str]:
    """Names of the scenarios that come with Bakeoff: those of a group, or of none."""
    return sorted(path.stem for path in (SHIPPED / group).glob("*.yaml"))


def _shipped() -> dict[str, Path]:
    """All of them by name."""
    return {name: SHIPPED / group / f"{name}.yaml" for group in ("", *GROUPS) for name in shipped_scenarios(group)}


def load_scenario(name_or_path: str) -> Scenario:
    """Read a shipped scenario by name, or any scenario file by path (that of a run: `runs.resume.find_scenario`).

    Raises:
        UserError: there is no such scenario, or it is wrong; with file, line and a hint.
    """
    path = Path(name_or_path)
    shipped = _shipped()
    known = list(shipped)
    if name_or_path in shipped:
        path = shipped[name_or_path]
    try:
        text = read_regular(path if path.is_dir() else path.resolve(), MAX_BYTES)
    except IsADirectoryError:
        text = f"{path} is a folder, and no run's; give a scenario file or one of: {', '.join(known)}."
        raise UserError(text) from None
    except (FileNotFoundError, NotADirectoryError):
        close = difflib.get_close_matches(name_or_path, known, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise UserError(
            f"There is no scenario {name_or_path!r}.{hint} Shipped scenarios: {', '.join(known)}; or give a .yaml file "
            "or a run's folder."
        ) from None
    except UnicodeDecodeError:
        raise UserError(f"{path} {NO_TEXT}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from None
    except ValueError:  # a path with a zero byte
        raise UserError(f"{name_or_path!r} cannot be read: it is no file's name.") from None
    if "\0" in text:
        raise UserError(f"{path} {NO_TEXT}")
    document = _parse(path, text)
    _check_size(path, document)
    if not isinstance(document, dict):
        raise UserError(f"{path}:1: a scenario is a mapping of keys such as `name:` and `prompt_tokens:`")
    _read_trace(path, document)
    _find_questions(path, document)
    try:
        return Scenario.model_validate(document)
    except ValidationError as error:
        mistakes = error.errors()
        told = [_explain(path, document, item) for item in mistakes[:MAX_TOLD]]
        more = [f"{path}: and {len(mistakes) - MAX_TOLD} more mistakes"] if len(mistakes) > MAX_TOLD else []
        raise UserError("\n".join(told + more)) from None


def _parse(path: Path, text: str) -> Any:
    """The file's document. Raises UserError for what is no YAML, or deep or large beyond any scenario."""
    # The library builds a document by recursion, and looks at each open bracket for each word: events first.
    depth = values = 0
    try:
        for event in YAML(typ="rt").parse(text):
            depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
            values += isinstance(event, ScalarEvent | AliasEvent | CollectionStartEvent)
            if depth > MAX_DEPTH or values > MAX_VALUES:
                break
        else:
            return YAML(typ="rt").load(text)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise UserError(
            f"{where}: not valid YAML: {getattr(error, 'problem', None) or str(error).splitlines()[0]}"
        ) from None
    except Exception as error:
        # The library raises bare errors for some values (`2001-99-99`, `!!int x`).
        why = str(error) if isinstance(error, ValueError) and str(error) else "a value or an alias in it cannot be read"
        if "integer string conversion" in why:  # Python's own limit, whose sentence speaks of Python
            why = "a number in it has thousands of digits"
        raise UserError(f"{path}: not valid YAML: {why}") from None
    raise UserError(f"{path}: {TOO_DEEP if depth > MAX_DEPTH else TOO_MANY}")


def _check_size(path: Path, document: Any) -> None:
    """Raise UserError for what aliases make larger than any scenario, or endless: counted, not unfolded."""
    sizes: dict[int, int] = {}

    def size(node: Any, depth: int) -> int:
        if not isinstance(node, dict | list | set | tuple):
            if isinstance(node, int) and node.bit_length() > MAX_BITS:
                raise UserError(f"{path}: a whole number in it has over a thousand digits")
            return 1
        known = sizes.get(id(node))
        if known == 0 or depth > MAX_DEPTH:
            raise UserError(f"{path}: {TOO_DEEP}, or an alias holds itself")
        if known is None:
            sizes[id(node)] = 0  # while it is counted
            inner = [*node.keys(), *node.values()] if isinstance(node, dict) else node
            known = sizes[id(node)] = 1 + sum(size(each, depth + 1) for each in inner)
        if known > MAX_VALUES:
            raise UserError(f"{path}: {TOO_MANY}, with its aliases")
        return known

    size(document, 0)


def _explain(path: Path, document: Any, item: Any) -> str:
    """One line a mistake: file, line, key, what is wrong, hint."""
    location: tuple[str | int, ...] = item["loc"]
    written = _written(document, location)
    line = _line_of(document, written)
    key = ".".join(str(step) for step in (location if written == location else ("engines", *location[1:])))
    message = wrong_value(item)
    if item["type"] == "value_error":  # our own checks over several keys begin with the key they are about
        named = re.match(r"`([a-z_.]+)`", message)
        line = _line_of(document, [*written, *named[1].split(".")]) if named else line
    if item["type"] == "extra_forbidden":
        known = [field.alias or name for name, field in _owner(location).model_fields.items()]
        close = difflib.get_close_matches(str(location[-1]), known, n=1)
        hint = f"did you mean `{close[0]}`?" if close else f"known keys: {', '.join(known)}"
        message = f"unknown key; {hint}"
    # A key that is missing at the top has no line.
    where = path if item["type"] == "missing" and len(location) == 1 else f"{path}:{line + 1}"
    return f"{where}: {'`' + key + '`: ' if key else ''}{message}"


def _written(document: Any, location: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """Where a mistake stands in the file: what is kept as `endpoints` and `variants` is written below `engines`."""
    if len(location) < 2 or location[0] not in ("endpoints", "variants") or location[0] in document:
        return location
    names = [entry.get("name") if isinstance(entry, dict) else entry for entry in document["engines"]]
    return ("engines", names.index(location[1]), *location[2:])


def _line_of(document: Any, location: Sequence[str | int]) -> int:
    """Line, from 0, of the deepest part of `location` that the document has."""
    node = document
    line = int(node.lc.line)
    for step in location:
        try:
            position: Any = node.lc
            line = (position.key if isinstance(node, dict) else position.item)(step)[0]
            node = node[step]
        except (AttributeError, KeyError, TypeError, IndexError):
            break
    return line


def _owner(location: Sequence[str | int]) -> type[BaseModel]:
    """The model that the last key of a location belongs to."""
    model: type[BaseModel] = Scenario
    for step in location[:-1]:
        field = model.model_fields.get(str(step))
        kinds = (field.annotation, *get_args(field.annotation)) if field is not None else ()
        model = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), model)
    return model


def _find_questions(path: Path, document: Any) -> None:
    """Put a file of questions, which is named from the scenario's folder, down by its full path."""
    quality = document.get("quality")
    if isinstance(quality, dict) and isinstance(quality.get("file"), str):
        quality["file"] = str((path.parent / quality["file"]).resolve())


def _read_trace(path: Path, document: Any) -> None:
    """Put what is known of a trace in the place of its file's name, and what follows from it. Raises UserError."""
    load = document.get("load")
    given = load.get("trace") if isinstance(load, dict) else None
    if isinstance(load, dict) and load.get("script") and given is None:
        _no_lengths(path, document, ("prompt_tokens", "output_tokens"), "script")
    if not isinstance(load, dict) or given is None:
        return
    named = {"file": given} if isinstance(given, str) else given
    if not isinstance(named, dict) or not set(named) <= {"file", "rebase"} or not isinstance(named.get("file"), str):
        if isinstance(named, dict) and "digest" in named:
            return  # what a run keeps of one
        line = _line_of(document, ["load", "trace"]) + 1
        raise UserError(f"{path}:{line}: `load.trace`: give a file's name, or {{file: NAME, rebase: true}}")
    file, rebase = path.parent / named["file"], named.get("rebase") is True
    try:
        facts = read_trace(file, rebase=rebase).facts(str(file.resolve()), rebase=rebase)
    except UserError as error:
        line = _line_of(document, ["load", "trace"]) + 1
        raise UserError(f"{path}:{line}: `load.trace`: {error}", exit_code=error.exit_code) from None
    load["trace"] = facts.model_dump()
    means = {"prompt_tokens": facts.prompt_tokens, "output_tokens": facts.output_tokens}
    known = {key: [mean] for key, mean in means.items() if mean is not None}
    _no_lengths(path, document, known, "trace")
    document.update(known)
    warmup = document.get("warmup_requests", OPEN_LOOP_WARMUP)
    if "requests" not in document and isinstance(warmup, int):
        document["requests"] = max(1, facts.requests - warmup)


def _no_lengths(path: Path, document: Any, keys: Iterable[str], kind: str) -> None:
    """Raise UserError where a file gives lengths beside what gives them itself."""
    for key in keys:
        if key in document:
            line = _line_of(document, [key]) + 1
            raise UserError(f"{path}:{line}: `{key}`: the {kind} gives the lengths itself: leave it out")
