"""Work in stages: every stage has a thread of its own, so that all wait for the slowest one only.

The threads hand items on through short queues. That bounds the memory, whatever the number of items, and keeps the
slowest stage supplied. Decoders, OpenCV, PyTorch and encoders work outside the interpreter lock, so threads suffice.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import Any


__all__ = ["Stages"]

# Items between two stages: enough to even out items of unequal cost, few enough for large pictures.
CAPACITY = 4

_END = object()


class Stages:
    """A source and the stages that each of its items passes through, in order.

    Args:
        source: Name and iterable of the items; it is iterated in a thread of its own.
        stages: Functions by name. Each is called with what the one before returned, for one item after the other in
            the order of the source and always in the same thread, so that it may keep a state.
        capacity: Items that may wait between two stages.

    Attributes:
        seconds: How long each stage has worked, by name, without the time that it waited.

    Example:
        >>> from fabrec_hf.common.thread_stages import Stages
        >>> list(Stages(("count", range(3)), {"square": lambda x: x * x, "text": str}))
        ['0', '1', '4']
    """

    def __init__(
        self, source: tuple[str, Iterable], stages: Mapping[str, Callable[[Any], Any]], capacity: int = CAPACITY
    ):
        self._source_name, self._source = source
        self._stages = dict(stages)
        self._capacity = capacity
        self.seconds: dict[str, float] = dict.fromkeys([self._source_name, *self._stages], 0.0)

    def __iter__(self) -> Generator:
        """Yield the results in order; what a stage raises is raised here, after the results before it.

        Closing the generator stops the threads after the items they are at, and waits for them. A loop that is left
        early closes it only when it is collected: use `contextlib.closing` where that matters.
        """
        queues = [_Queue(self._capacity) for _ in range(len(self._stages) + 1)]
        items = iter(self._source)
        threads = [threading.Thread(target=self._feed, args=(items, queues[0]), daemon=True)]
        for (name, function), first, second in zip(self._stages.items(), queues, queues[1:], strict=False):
            threads.append(threading.Thread(target=self._work, args=(name, function, first, second), daemon=True))
        for thread in threads:
            thread.start()
        try:
            while (item := queues[-1].get()) is not _END:
                if isinstance(item, _Failure):
                    raise item.error
                yield item
        finally:
            for queue in queues:
                queue.close()
            for thread in threads:
                thread.join()

    def _feed(self, items: Iterator, queue: "_Queue") -> None:
        try:
            while True:
                item = self._timed(self._source_name, next, items, _END)
                if not queue.put(item) or item is _END or isinstance(item, _Failure):
                    return
        finally:
            if isinstance(items, Generator):  # lets go of files here, in the thread that has read them
                items.close()

    def _work(self, name: str, function: Callable, before: "_Queue", after: "_Queue") -> None:
        while (item := before.get()) is not _END:
            if not isinstance(item, _Failure):
                item = self._timed(name, function, item)
            if not after.put(item) or isinstance(item, _Failure):
                break
        after.put(_END)

    def _timed(self, name: str, function: Callable, *arguments) -> Any:
        started = time.perf_counter()
        try:
            return function(*arguments)
        except BaseException as error:  # raised again where the results are taken
            return _Failure(error)
        finally:
            self.seconds[name] += time.perf_counter() - started


class _Failure:
    def __init__(self, error: BaseException):
        self.error = error


class _Queue:
    """A bounded queue that can be closed, which wakes everyone who waits at it."""

    def __init__(self, capacity: int):
        self._items: deque = deque()
        self._capacity = capacity
        self._closed = False
        self._changed = threading.Condition()

    def put(self, item: Any) -> bool:
        """Wait for room and add an item; False if the queue has been closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._items) < self._capacity)
            if not self._closed:
                self._items.append(item)
                self._changed.notify_all()
            return not self._closed

    def get(self) -> Any:
        """Wait for an item and take it; `_END` if the queue has been closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._items)
            if self._closed:
                return _END
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
