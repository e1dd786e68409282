"""Trainings in the background, one at a time, in the order in which they were asked for."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from ..errors import DataError, FabRecError
from ..learning.fewshot import FitProgress
from ..learning.fit_result import FitResult


__all__ = ["FitJob", "FitQueue"]

logger = logging.getLogger(__name__)

STEPS_TO_KNOW = 5

Work = Callable[[Callable[[FitProgress], None], Callable[[], bool]], FitResult]


@dataclass(eq=False)
class FitJob:
    """A training that waits, runs or is over.

    Attributes:
        work: `work(on_step, should_stop)` trains and keeps what was learned.
        owner: Whose it is: a second one of the same owner takes the place of the first while that waits.
        state: `"waiting"`, `"learning"`, `"done"`, `"stopped"` or `"failed"`.
        losses: Of every step of the training itself.
        progress: The last that was heard of it.
        result: The result of the fit, when it is done.
        error: Why it failed, in one line.
    """

    work: Work
    owner: str = ""
    state: str = "waiting"
    losses: list[float] = field(default_factory=list)
    progress: FitProgress | None = None
    result: FitResult | None = None
    error: str | None = None
    _phase: tuple[str, float, int] | None = field(default=None, repr=False)
    _stop: threading.Event = field(default_factory=threading.Event, repr=False)
    _over: threading.Event = field(default_factory=threading.Event, repr=False)

    @property
    def active(self) -> bool:
        """Whether it waits or runs."""
        return self.state in ("waiting", "learning")

    def cancel(self) -> None:
        """Ask the fit to stop; what it has learned is kept."""
        self._stop.set()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until it is over; False if it is not."""
        return self._over.wait(seconds)

    def run(self) -> None:
        """Train; errors become the state of the job."""
        if self._stop.is_set():
            self.finish("stopped")
            return
        self.state = "learning"
        try:
            self.result = self.work(self._report, self._stop.is_set)
        except FabRecError as error:
            self.finish("failed", str(error))
        except Exception:
            logger.exception("A training failed.")
            self.finish("failed", "The training failed on the server: try again.")
        else:
            self.finish("stopped" if self.result.stopped else "done")

    def finish(self, state: str, error: str | None = None) -> None:
        """End it."""
        self.state, self.error = state, error
        self._over.set()

    def _report(self, progress: FitProgress) -> None:
        if progress.phase == "learning":
            self.losses.append(progress.loss)
        if self._phase is None or self._phase[0] != progress.phase:
            self._phase = progress.phase, time.monotonic(), progress.step
        self.progress = progress

    @property
    def seconds_left(self) -> float | None:
        """Seconds that the present phase still takes at the speed that it had so far; None before that is known."""
        progress, phase = self.progress, self._phase
        if progress is None or phase is None or progress.step - phase[2] < STEPS_TO_KNOW:
            return None
        passed = time.monotonic() - phase[1]
        return passed / (progress.step - phase[2]) * (progress.steps - progress.step)


class FitQueue:
    """Runs jobs one after the other in a thread of its own. Safe to use from threads.

    Args:
        capacity: Jobs that may wait.
    """

    def __init__(self, capacity: int):
        self._waiting: deque[FitJob] = deque()
        self._running: FitJob | None = None
        self._capacity = capacity
        self._changed = threading.Condition()
        threading.Thread(target=self._work, name="fits", daemon=True).start()

    def add(self, job: FitJob) -> FitJob:
        """Put a job at the end.

        Raises:
            DataError: If too many wait already.
        """
        with self._changed:
            for other in [other for other in self._waiting if job.owner and other.owner == job.owner]:
                self._waiting.remove(other)
                other.finish("stopped")
            if len(self._waiting) >= self._capacity:
                raise DataError("Too many trainings are waiting already: try again in a few minutes.")
            self._waiting.append(job)
            self._changed.notify()
        return job

    def position(self, job: FitJob) -> int:
        """Return how many jobs come before this one; 0 when it runs or is over."""
        with self._changed:
            if job not in self._waiting:
                return 0
            return self._waiting.index(job) + (self._running is not None)

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    self._changed.wait()
                self._running = self._waiting.popleft()
            self._running.run()
            with self._changed:
                self._running = None
