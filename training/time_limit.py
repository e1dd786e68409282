"""Stopping a training in time on a machine that is only lent: a cluster's slot, a notebook's session."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from accelerate import Accelerator


__all__ = ["Pause", "TimeLimit", "check_minutes", "duration"]


def duration(seconds: float) -> str:
    """Return a length of time for a reader: `40 s`, `7 min` or `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def check_minutes(minutes: float | None) -> None:
    """Refuse a value of --max_minutes that leaves no time.

    Raises:
        ValueError: It is not positive.
    """
    if minutes is not None and not minutes > 0:
        raise ValueError(f"--max_minutes must be more than 0, got {minutes}.")


@dataclass(frozen=True)
class Pause:
    """Where a training stopped before its end because its time was over.

    Attributes:
        done: Steps, over all runs so far.
        left: Steps to go.
        seconds_left: How long these take at the rate of this run; None if a single step was no measurement.
        unit: What a step is called.
    """

    done: int
    left: int
    seconds_left: float | None
    unit: str = "step"

    def __str__(self) -> str:
        needs = "" if self.seconds_left is None else f", about {duration(self.seconds_left)} at this run's rate"
        return f"Stopped in time at {self.unit} {self.done}: {self.left} {self.unit}s left{needs}"


class TimeLimit:
    """The minutes that a run may take, from the moment that this is made.

    All processes of a run decide alike: the clock of the first one counts.

    Args:
        minutes: How many; None for any number.
        clock: Seconds, from any beginning.
    """

    def __init__(self, minutes: float | None, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._end = None if minutes is None else clock() + 60 * minutes
        self._first: tuple[int, float] | None = None

    def reached(self, accelerator: Accelerator | None, done: int) -> bool:
        """Whether the time is over; to be asked after every step, or after the same ones by all processes.

        With several processes this waits for all of them.

        Args:
            accelerator: Knows the other processes; None where there are none.
            done: Steps done, over all runs.
        """
        if self._end is None:
            return False
        if self._first is None:  # what the first step does once, such as compiling, says nothing about the others
            self._first = done, self._clock()
        over = self._clock() >= self._end
        if accelerator is None or accelerator.num_processes == 1:
            return over
        first_says = torch.tensor(over and accelerator.is_main_process, dtype=torch.float32, device=accelerator.device)
        return bool(accelerator.reduce(first_says, "sum") > 0)

    def pause(self, done: int, steps: int) -> Pause:
        """Say what is left of a run that stops now.

        Args:
            done: Steps done, over all runs.
            steps: Steps that the training has in the end.
        """
        seconds = None
        if self._first is not None and done > self._first[0]:
            seconds = (self._clock() - self._first[1]) / (done - self._first[0]) * (steps - done)
        return Pause(done, steps - done, seconds)
