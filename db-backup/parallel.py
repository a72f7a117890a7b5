"""Doing the same to many things, some of them at once."""

import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, NoReturn, TypeVar

T = TypeVar("T")
R = TypeVar("R")

MOST_JOBS = 64
AHEAD = 2  # times as many as are worked on at once are begun before the first is taken


@dataclass
class _Task(Generic[T, R]):
    """A thing, and what comes of it: a result, or what was raised instead."""

    item: T
    done: "queue.SimpleQueue[Callable[[], R]]" = field(default_factory=queue.SimpleQueue)

    def work(self, work: Callable[[T], R]) -> None:
        """Do it; what is raised is raised where the result is taken."""
        try:
            result = work(self.item)
        except BaseException as error:  # noqa: BLE001 (as above)
            self.done.put(partial(_fail, error))
        else:
            self.done.put(lambda: result)


class BytesInFlight:
    """Bounds the bytes that wait for a network, or are on their way, over many threads.

    Args:
        most: of them; a piece that is larger goes alone.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._bytes = 0
        self._given = threading.Condition()

    def take(self, size: int) -> None:
        """Wait until there is room for so many."""
        with self._given:
            self._given.wait_for(lambda: not self._bytes or self._bytes + size <= self._most)
            self._bytes += size

    def give(self, size: int) -> None:
        """Give back so many."""
        with self._given:
            self._bytes -= size
            self._given.notify_all()


def jobs_at_once(wanted: int) -> int:
    """Return how many things are done at once; 0: as many as this process has cores."""
    return wanted or min(len(os.sched_getaffinity(0)), MOST_JOBS)


def in_parallel(work: Callable[[T], R], items: Iterable[T], jobs: int) -> Iterator[R]:
    """Yield what comes of each thing, in their order, while others are worked on.

    The threads are daemons, and this one waits for queues of the C implementation alone: so a
    signal ends it at once, whatever they wait for. When it ends early, no more things are begun.

    Args:
        work: is done to each thing, in whatever thread.
        items: are taken as they are needed.
        jobs: how many are worked on at once; with 1 there are no threads.

    Raises:
        Exception: what `work` has raised, in the place of its result.
    """
    if jobs == 1:
        yield from map(work, items)
        return
    waiting: queue.SimpleQueue[_Task[T, R] | None] = queue.SimpleQueue()
    over = threading.Event()

    def run() -> None:
        while (task := waiting.get()) is not None and not over.is_set():
            task.work(work)

    for number in range(jobs):
        threading.Thread(target=run, name=f"job {number + 1}", daemon=True).start()
    begun: deque[_Task[T, R]] = deque()
    try:
        for item in items:
            begun.append(_Task(item))
            waiting.put(begun[-1])
            if len(begun) >= AHEAD * jobs:
                yield begun.popleft().done.get()()
        while begun:
            yield begun.popleft().done.get()()
    finally:
        over.set()
        for _ in range(jobs):
            waiting.put(None)


def as_they_end(work: Callable[[T], R], items: Iterable[T], threads: int) -> Iterator[R]:
    """Yield what comes of each thing when it has come; otherwise do as `in_parallel` does.

    A thing is taken when a thread is free for it.
    """
    if threads == 1:
        yield from map(work, items)
        return
    waiting: queue.SimpleQueue[T | None] = queue.SimpleQueue()
    done: queue.SimpleQueue[Callable[[], R]] = queue.SimpleQueue()

    def run() -> None:
        while (item := waiting.get()) is not None:
            task = _Task[T, R](item, done)
            task.work(work)

    at_work = 0
    try:
        for number, item in enumerate(items):
            if number < threads:
                threading.Thread(target=run, name=f"job {number + 1}", daemon=True).start()
            else:
                at_work -= 1
                yield done.get()()
            waiting.put(item)
            at_work += 1
        for _ in range(at_work):
            yield done.get()()
    finally:
        for _ in range(threads):
            waiting.put(None)


def _fail(error: BaseException) -> NoReturn:
    raise error
