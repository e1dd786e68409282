"""Threaded stages: order, errors, early ends, bounded memory, and that stages really work at the same time."""

import threading
import time
from contextlib import closing

import pytest

from fabrec_hf.common.thread_stages import Stages


def test_results_come_in_order_and_stages_keep_their_state():
    total = 0

    def add_up(value):
        nonlocal total
        total += value
        return total

    stages = Stages(("numbers", range(100)), {"double": lambda x: 2 * x, "sum": add_up})
    assert list(stages) == [x * (x + 1) for x in range(100)]
    assert set(stages.seconds) == {"numbers", "double", "sum"}
    assert list(Stages(("none", []), {"double": lambda x: 2 * x})) == []
    assert list(Stages(("alone", "abc"), {})) == ["a", "b", "c"]


def test_stages_work_at_the_same_time():
    """Each of two stages waits for the other one to be at work on another item."""
    meeting = threading.Barrier(2, timeout=30)

    def first(value):
        if value == 1:
            meeting.wait()
        return value

    def second(value):
        if value == 0:
            meeting.wait()
        return value

    assert list(Stages(("numbers", range(2)), {"first": first, "second": second})) == [0, 1]


def test_few_items_are_under_way():
    """A slow end holds the source up: what is read but not taken is bounded by the queues."""
    read = []

    def source():
        for number in range(10_000):
            read.append(number)
            yield number

    stages = Stages(("numbers", source()), {"same": lambda x: x}, capacity=3)
    with closing(iter(stages)) as results:
        for taken in range(20):
            assert next(results) == taken
            time.sleep(0.002)
            # Two queues of 3, one item in each of the two threads, one with the consumer.
            assert len(read) <= taken + 1 + 2 * 3 + 2


@pytest.mark.parametrize("place", ["source", "stage"])
def test_errors_arrive_after_the_results_before_them(place):
    def source():
        for number in range(10):
            if place == "source" and number == 5:
                raise OSError("unplugged")
            yield number

    def stage(number):
        if place == "stage" and number == 5:
            raise OSError("unplugged")
        return number

    before = threading.active_count()
    results = []
    with pytest.raises(OSError, match="unplugged"):
        for result in Stages(("source", source()), {"stage": stage, "more": lambda x: x}):
            results.append(result)
    assert results == [0, 1, 2, 3, 4]
    assert threading.active_count() == before


def test_leaving_early_stops_the_threads_and_closes_the_source():
    closed = threading.Event()

    def source():
        try:
            while True:
                yield 1
        finally:
            closed.set()

    before = threading.active_count()
    with closing(iter(Stages(("ones", source()), {"same": lambda x: x}))) as results:
        assert next(results) == 1
    assert closed.is_set()
    assert threading.active_count() == before


def test_seconds_are_those_of_work_without_waiting():
    stages = Stages(("numbers", range(5)), {"fast": lambda x: x, "slow": lambda x: time.sleep(0.03) or x})
    assert list(stages) == [0, 1, 2, 3, 4]
    assert stages.seconds["slow"] >= 0.15
    assert stages.seconds["fast"] < 0.1
