"""Threads that compute alone: each takes a few items from beginning to end, and all cores are busy.

PyTorch shares the work on one item among threads of its own, which gains little where items are small and loses more
where several threads do so at once. Its sums also depend on how many share them, in the last digits: threads that
compute alone give the same bits on any machine.
"""

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


@contextmanager
def computing_threads(count: int) -> Iterator[None]:
    """Let PyTorch compute with so many threads in threads that are started meanwhile, and as before at the end."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def lone_threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Open a pool of threads each of which computes alone; what was not begun is dropped at the end."""
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)  # the number of threads to start later is shared by all


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
