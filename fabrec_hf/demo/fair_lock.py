"""A lock that serves threads in the order in which they came."""

import threading
from collections import deque


__all__ = ["FairLock"]


class FairLock:
    """A reentrant lock for `with`, first come, first served.

    The first of a person's two clicks must be dealt with first; `threading.RLock` promises no order.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._queue: deque[int] = deque()
        self._depth = 0

    def __enter__(self) -> "FairLock":
        thread = threading.get_ident()
        with self._changed:
            if self._depth and self._queue[0] == thread:
                self._depth += 1
                return self
            self._queue.append(thread)
            self._changed.wait_for(lambda: not self._depth and self._queue[0] == thread)
            self._depth = 1
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._depth -= 1
            if not self._depth:
                self._queue.popleft()
                self._changed.notify_all()
