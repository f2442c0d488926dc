"""All commands together, and how they end: exit codes, and messages instead of tracebacks.

`compare` and `export` have theirs in their own packages. All are light at the top: whichever command is given, all of
them are loaded, and `run` must patch sockets before anything else opens one.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import warnings

import typer
from typer.exceptions import TyperException

from loadgen.cli.bench import bench, with_most_repeats
from loadgen.cli.calibrate import calibrate
from loadgen.cli.compare import compare
from loadgen.cli.dashboards import dashboards
from loadgen.cli.explain import explain
from loadgen.cli.export import export
from loadgen.cli.preflight import preflight
from loadgen.cli.quality import quality
from loadgen.cli.report import report
from loadgen.cli.run import run
from loadgen.cli.scenarios import scenarios
from loadgen.cli.wrong_usage import usage_words
from loadgen.errors import INTERRUPTED, OK, WRONG_USAGE, Terminated, UserError
from loadgen.message import printable
from loadgen.presentation.ascii import tell_apart

app = typer.Typer(
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Bakeoff: a fair, reproducible bake-off between LLM serving engines.",
)
for command in (run, bench, preflight, quality, report, explain, compare, export, dashboards, scenarios, calibrate):
    app.command()(command)


OF_RUN_FOLDERS = ("report", "explain", "compare", "export", "dashboards")
"""Commands that read what someone else may have written."""
UNREADABLE = (ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError)
"""What these raise for values that nobody thought of."""
OF_FILES = frozenset(
    {
        *(errno.EACCES, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EISDIR, errno.ELOOP, errno.EMFILE),
        *(errno.ENAMETOOLONG, errno.ENFILE, errno.ENOSPC, errno.ENOTDIR, errno.EPERM, errno.EROFS),
    }
)
"""What goes wrong with a file or its place, whoever opened it."""
TRACEBACK_VARIABLE = "BAKEOFF_TRACEBACK"


def main() -> int:
    """Run the command line and return its exit code. Errors meant for the user are printed as they are."""
    signal.signal(signal.SIGTERM, _terminate)
    for stream in (sys.stdout, sys.stderr):
        tell_apart(stream)  # where a terminal has not got our characters
    code = _run(sys.argv[1:] or ["--help"])
    try:
        sys.stdout.flush()
    except OSError as error:
        # Python would try again at its end, and tell of it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno != errno.EPIPE:
            code = _told(error)
    if code == INTERRUPTED:
        print("Interrupted.", file=sys.stderr)
    return code


def _run(arguments: list[str]) -> int:
    if arguments[0] in OF_RUN_FOLDERS:
        warnings.simplefilter("ignore", RuntimeWarning)  # numpy's, of numbers that overflow
    try:
        return int(app(with_most_repeats(arguments), prog_name="bakeoff", standalone_mode=False) or OK)
    except TyperException as error:
        print(printable(usage_words(error)), file=sys.stderr)
        return WRONG_USAGE
    except (*UNREADABLE, OSError) as error:
        return _told(error, of_a_run=arguments[0] in OF_RUN_FOLDERS)
    except UserError as error:
        print(printable(f"Error: {error}"), file=sys.stderr)
        return error.exit_code
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(bool(end.code))
    except KeyboardInterrupt:
        return INTERRUPTED


def _told(error: Exception, *, of_a_run: bool = False) -> int:
    """Tell what went wrong with a file, or with one that someone else wrote. Raises the error if it is neither."""
    if os.environ.get(TRACEBACK_VARIABLE):
        raise error
    if isinstance(error, OSError) and error.errno in OF_FILES:
        where = "standard output" if error.filename is None else str(error.filename)[:200]
        said = f"{where}: {error.strerror}."
    elif of_a_run and isinstance(error, UNREADABLE):
        what = (str(error).splitlines() or [""])[0][:200]
        said = (
            f"the run cannot be read: its files hold what no run leaves ({type(error).__name__}: {what}). "
            f"If a race of yours left them so, report it with what {TRACEBACK_VARIABLE}=1 shows."
        )
    else:
        raise error
    print(printable(f"Error: {said}"), file=sys.stderr)
    return WRONG_USAGE


def _terminate(*_: object) -> None:
    raise Terminated
