"""`python -m loadgen` again and again in one process: starting one takes longer than most of what is asked of it.

`run` patches the standard library for gevent, so this is a process of its own and not the tests'.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys

from tests.loadgen.bench.races import TOP, environment


class CommandLine:
    """Call it with the arguments of `loadgen`, and with variables to set for that call."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.loadgen.command_line"],
            cwd=TOP,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps([arguments, environment]) + "\n")
        self._process.stdin.flush()
        code, out, err = json.loads(self._process.stdout.readline())
        assert "Traceback" not in out + err
        return subprocess.CompletedProcess(["loadgen", *arguments], code, out, err)

    def close(self) -> None:
        self._process.communicate(timeout=120)


def _serve() -> None:
    """One call a line, one answer a line."""
    from loadgen.cli.app import main

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever is printed past `sys.stdout` is no answer
    untouched = dict(os.environ)
    for line in sys.stdin:
        arguments, environment = json.loads(line)
        os.environ.clear()
        os.environ.update(untouched | environment)
        sys.argv = [str(TOP / "loadgen" / "__main__.py"), *arguments]
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main()
        said = [stream.buffer.getvalue().decode() for stream in (out, err)]  # type: ignore[attr-defined]
        print(json.dumps([code, *said]), file=answers, flush=True)


if __name__ == "__main__":
    _serve()
