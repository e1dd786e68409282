"""What tests run in forks of a warm process behaves as it does in a new Python."""

import time

from support.warm_processes import run_code, run_file, run_ranks


def test_a_forked_program_is_what_a_new_one_would_be(tmp_path):
    code = "import os, sys; print(sys.argv[1:], os.getcwd(), dict(os.environ), __name__, repr(sys.stdin.read()))"
    done = run_code(code + "; sys.exit(3)", "a", 1, environment={"X": "y"}, folder=tmp_path)
    assert (done.returncode, done.stderr) == (3, "")
    assert done.stdout == f"['a', '1'] {tmp_path} {{'X': 'y'}} __main__ ''\n"
    done = run_code("class Odd(Exception): pass\nraise Odd('seen')")
    assert (done.returncode, done.stdout) == (1, "") and done.stderr.endswith("Odd: seen\n")
    (tmp_path / "beside.py").write_text("VALUE = 7")
    (tmp_path / "script.py").write_text("import beside, torch; print(__file__, beside.VALUE, torch.get_num_threads())")
    done = run_file(tmp_path / "script.py", environment={"OMP_NUM_THREADS": "2"})
    assert done.stdout == f"{tmp_path / 'script.py'} 7 2\n", done.stderr


def test_nothing_that_reads_variables_of_the_hub_is_there_before():
    code = (
        "import sys; print({'torch', 'fabrec_hf', 'transformers', 'datasets', 'huggingface_hub'} & set(sys.modules))"
    )
    assert run_code(code).stdout == "{'torch'}\n"


def test_ranks_share_their_work_and_end_with_the_first_that_fails(tmp_path):
    sum_up = "import torch, torch.distributed as d\nd.init_process_group('gloo'); x = torch.tensor(d.get_rank() + 1)\n"
    (tmp_path / "sum.py").write_text(sum_up + "d.all_reduce(x); print(x.item()); d.destroy_process_group()\n")
    done = run_ranks(tmp_path / "sum.py", processes=3)
    assert (done.returncode, done.stdout.split()) == (0, ["6"] * 3), done.stderr
    failing = "import os, sys, time\nsys.exit(5) if os.environ['RANK'] == '1' else time.sleep(500)"
    (tmp_path / "failing.py").write_text(failing)
    start = time.monotonic()
    assert run_ranks(tmp_path / "failing.py").returncode == 5 and time.monotonic() - start < 400
