"""Calls that may never return, each waited for only so long.

A driver can keep a call for ever, and a thread inside of it cannot be ended. So calls run in a thread beside the one
that asks. When one is late, that thread is left to it, another takes its place, and the same is not asked again until
it has returned.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

T = TypeVar("T")
Outcome = tuple[Any, BaseException | None]
Task = tuple[Callable[[], Any], "queue.SimpleQueue[Outcome]"]
HURRY = 10
"""While a call of the same owner is late, another is waited for this many times shorter."""


class Late(Exception):
    """The call has not returned yet."""


class Patience:
    """Asks, and waits no longer than `limit_s`. For one thread at a time.

    Args:
        limit_s: the longest that a call is waited for, s; None to call directly and wait for ever.
    """

    def __init__(self, limit_s: float | None) -> None:
        self._limit_s = limit_s
        self._tasks: queue.SimpleQueue[Task | None] | None = None
        self._late: dict[tuple[Hashable, Hashable], None] = {}
        self._cpu_s = 0.0

    @property
    def all_returned(self) -> bool:
        """Whether no call is late."""
        return not self._late

    def cpu_s(self) -> float:
        """CPU time of the calling thread and of all calls, s."""
        return self._cpu_s + time.thread_time()

    def ask(self, owner: Hashable, what: Hashable, call: Callable[[], T], limit_s: float | None = None) -> T:
        """Return what the call returns, or raise what it raises. Raises Late, at once if the same is late already."""
        limit_s = limit_s or self._limit_s
        if limit_s is None:
            return call()
        key = (owner, what)
        late = list(self._late)
        if key in late:
            raise Late
        if any(one == owner for one, _ in late):
            limit_s /= HURRY
        if self._tasks is None:
            self._tasks = queue.SimpleQueue()
            threading.Thread(target=self._serve, args=(self._tasks,), name="Patience", daemon=True).start()
        outcome: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self._late[key] = None
        self._tasks.put((lambda: self._until_returned(key, call), outcome))
        try:
            answer, error = outcome.get(timeout=limit_s)
        except queue.Empty:
            self._tasks.put(None)
            self._tasks = None
            raise Late from None
        if error is not None:
            raise error
        return answer  # type: ignore[no-any-return]  # it is what `call` returned

    def _until_returned(self, key: tuple[Hashable, Hashable], call: Callable[[], T]) -> T:
        try:
            return call()
        finally:
            self._late.pop(key, None)

    def _serve(self, tasks: queue.SimpleQueue[Task | None]) -> None:
        while (task := tasks.get()) is not None:
            call, outcome = task
            began = time.thread_time()
            try:
                result: Outcome = (call(), None)
            except BaseException as error:
                result = (None, error)
            self._cpu_s += time.thread_time() - began
            outcome.put(result)
