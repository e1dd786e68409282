"""Clicks keep their order, and a demonstration that was killed leaves nothing behind for long."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fabrec_hf.demo import temporary
from fabrec_hf.demo.fair_lock import FairLock
from fabrec_hf.demo.temporary import temporary_folder


def test_the_lock_serves_in_the_order_of_arrival():
    lock, served = FairLock(), []

    def click(number):
        with lock, lock:  # one who holds it may take it again
            served.append(number)

    clicks = [threading.Thread(target=click, args=(number,)) for number in range(20)]
    with lock:
        for number, thread in enumerate(clicks):
            thread.start()
            while len(lock._queue) < number + 2:
                time.sleep(0.001)
        assert served == []
    for thread in clicks:
        thread.join(10)
    assert served == list(range(20))


def test_only_one_thread_holds_the_lock():
    lock, inside, most = FairLock(), [], []

    def work():
        for _ in range(50):
            with lock:
                inside.append(1)
                most.append(len(inside))
                time.sleep(0)
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(most) == 200 and max(most) == 1


@pytest.mark.skipif(temporary.fcntl is None, reason="no file locks on this system")
def test_what_a_killed_process_left_is_removed_and_what_is_in_use_stays(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    script = (
        "import sys, tempfile, time; tempfile.tempdir = sys.argv[1]\n"
        "from fabrec_hf.demo.temporary import temporary_folder\n"
        "with temporary_folder() as folder:\n"
        "    (folder / 'photograph.jpg').write_bytes(b'a face')\n"
        "    print(folder, flush=True)\n"
        "    time.sleep(60)\n"
    )
    foreign = tmp_path / "fabrec-demo-begun"  # of one that starts just now: it has no lock yet
    foreign.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    left = Path(process.stdout.readline().strip())
    with temporary_folder() as folder:
        assert (left / "photograph.jpg").exists() and folder != left
    assert not folder.exists()
    process.kill()
    process.wait()
    process.stdout.close()
    assert (left / "photograph.jpg").exists()
    with temporary_folder():
        assert not left.exists() and foreign.exists()
