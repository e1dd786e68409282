"""Threads that compute alone: each takes a few items from beginning to end, and all cores are busy.

PyTorch shares the work on one item among threads of its own, which gains little where items are small and loses more
where several threads do so at once. Its sums also depend on how many share them, in the last digits: threads that
compute alone give the same bits on any machine.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch


# Faces that one CPU thread computes at a time: more of them are no faster, and leave threads idle on small data.
FACES_PER_THREAD = 4

Item = TypeVar("Item")
Result = TypeVar("Result")

_lock = threading.Lock()
_before, _blocks = 1, 0


@contextmanager
def computing_threads(count: int) -> Iterator[None]:
    """Let PyTorch compute with so many threads, here and in threads that are started meanwhile."""
    with _restored():
        torch.set_num_threads(count)
        yield


@contextmanager
def lone_threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Open a pool of threads each of which computes alone; what was not begun is dropped at the end."""
    with _restored():
        pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))
        try:
            yield pool
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _restored() -> Iterator[None]:
    """Let a block change how many threads PyTorch computes with.

    Each thread has a number of its own, and takes it from one for the whole process when it first computes. Setting
    one sets the other. Where blocks overlap, both are what they were when the last of them has ended.
    """
    global _before, _blocks
    own = torch.get_num_threads()
    with _lock:
        if not _blocks:
            _before = own
        _blocks += 1
    try:
        yield
    finally:
        with _lock:
            _blocks -= 1
            torch.set_num_threads(own if _blocks else _before)


def in_order(
    pool: ThreadPoolExecutor, function: Callable[[Item], Result], items: Iterable[Item], window: int
) -> Iterator[tuple[Item, Future[Result]]]:
    """Work on items in a pool, and yield each with its future in their order.

    Args:
        pool: From `lone_threads`.
        function: What is done with an item.
        items: Taken one by one, as room is made.
        window: The most items that are begun and not taken; it bounds the memory.
    """
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    for item in items:
        if len(waiting) == window:
            yield waiting.popleft()
        waiting.append((item, pool.submit(function, item)))
    yield from waiting


__all__ = ["FACES_PER_THREAD", "computing_threads", "in_order", "lone_threads"]
