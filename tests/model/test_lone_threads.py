"""Threads that compute alone: in order, few at a time, and PyTorch's threads are as before when they have ended."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from fabrec_hf.model.lone_threads import computing_threads, in_order, lone_threads


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def in_new_thread(function):
    """Call a function in a thread that has not computed before: it goes by the number of the process."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result()


def test_each_thread_computes_alone_and_all_is_as_before_at_the_end(three_threads):
    meeting = threading.Barrier(2, timeout=30)

    def work(item):
        meeting.wait()  # two are at work
        return item, torch.get_num_threads(), threading.get_ident()

    with lone_threads(2) as pool:
        found = [future.result() for _, future in in_order(pool, work, range(4), 4)]
    assert [item for item, _, _ in found] == [0, 1, 2, 3] and {count for _, count, _ in found} == {1}
    assert len({thread for _, _, thread in found}) == 2
    assert torch.get_num_threads() == 3 and in_new_thread(torch.get_num_threads) == 3


def test_results_come_in_order_and_items_are_taken_as_room_is_made():
    taken = []

    def items():
        for item in range(50):
            taken.append(item)
            yield item

    def work(item):
        time.sleep(0.004 if item % 3 == 0 else 0)
        return item * item

    with lone_threads(3) as pool:
        for place, (item, future) in enumerate(in_order(pool, work, items(), 5)):
            assert item == place and future.result() == place * place
            assert len(taken) <= place + 1 + 5


def test_what_was_not_begun_is_dropped(three_threads):
    begun = []

    def work(item):
        begun.append(item)
        if item == 1:
            raise ValueError("one of them")
        time.sleep(0.01)

    with pytest.raises(ValueError, match="one of them"), lone_threads(1) as pool:
        for _, future in in_order(pool, work, range(100), 50):
            future.result()
    assert begun[:2] == [0, 1] and len(begun) < 50
    assert torch.get_num_threads() == 3


def test_a_thread_that_is_started_meanwhile_computes_with_fewer(three_threads):
    with computing_threads(2):
        assert torch.get_num_threads() == in_new_thread(torch.get_num_threads) == 2
    assert torch.get_num_threads() == in_new_thread(torch.get_num_threads) == 3


@pytest.mark.parametrize("last", ["first", "second"])
def test_blocks_that_overlap_leave_the_number_that_was_there_before_them(three_threads, last):
    both, ended = threading.Barrier(2, timeout=30), threading.Event()

    def work(name, block):
        with block as pool:
            if pool is not None:
                pool.submit(torch.get_num_threads).result()
            both.wait()
            if name == last:
                ended.wait(30)
        if name != last:
            ended.set()

    threads = [
        threading.Thread(target=work, args=("first", lone_threads(1))),
        threading.Thread(target=work, args=("second", computing_threads(2))),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert torch.get_num_threads() == in_new_thread(torch.get_num_threads) == 3
