"""`--max_minutes`: a training stops in time, says what is left, and goes on as if it had never stopped."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from safetensors.torch import load_file


pytest.importorskip("accelerate")

ROOT = Path(__file__).parents[2]

from time_limit import Pause, TimeLimit, duration  # noqa: E402

from support.tiny_checkpoints import save_autoencoder  # noqa: E402
from support.warm_processes import run_ranks  # noqa: E402


ALONE = SimpleNamespace(num_processes=1)
PRETRAIN = {"preset": "small", "image_size": 64, "widths": [8, 8, 8, 8], "batch_size": 8, "feed": "memory"}
PRETRAIN |= {"held_out_fraction": 0.3, "adversarial_weight": 0.0, "max_steps": 3, "log_every": 1, "report_to": "none"}
LANDMARKS = {"head_steps": 1, "finetune_steps": 3, "batch_size": 4, "heatmap_size": 16, "heatmap_sigma": 1.0}
LANDMARKS |= {"report_to": "none"}
AT_ONCE = 1e-6


def equal_weights(first: Path, second: Path) -> bool:
    ours, theirs = load_file(first / "model.safetensors"), load_file(second / "model.safetensors")
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_the_rate_leaves_out_the_first_step():
    """A first step of 50 s and two of 5 s: ten more take 50 s."""
    now = [0.0]
    limit = TimeLimit(1.0, clock=lambda: now[0])
    for done, seconds in ((101, 50.0), (102, 55.0), (103, 60.0)):
        now[0] = seconds
        assert limit.reached(ALONE, done) == (seconds >= 60)
    pause = limit.pause(103, 113)
    assert (pause.done, pause.left, pause.seconds_left) == (103, 10, pytest.approx(50.0))
    assert str(pause) == "Stopped in time at step 103: 10 steps left, about 50 s at this run's rate"
    assert not TimeLimit(None, clock=lambda: 1e9).reached(ALONE, 1)
    assert str(Pause(1, 2, None)) == "Stopped in time at step 1: 2 steps left"
    assert [duration(seconds) for seconds in (89, 150, 12600)] == ["89 s", "2 min", "3.5 h"]


def test_processes_stop_when_the_first_one_says_so():
    """The clock of another process never ends a run by itself."""

    def process(main: bool, total: float):
        reduce = lambda value, kind: value + total  # noqa: E731  (what the other process brings to the sum)
        return SimpleNamespace(num_processes=2, is_main_process=main, device="cpu", reduce=reduce)

    over = TimeLimit(1e-9)
    assert over.reached(process(True, 0.0), 1) and not over.reached(process(False, 0.0), 1)
    assert TimeLimit(60).reached(process(False, 1.0), 1) and not TimeLimit(60).reached(process(True, 0.0), 1)


def test_a_pretraining_of_two_processes_stops_in_time_and_goes_on(drawn_faces, tmp_path, same_threads):
    from pretrain import PretrainingArguments, main

    settings = PRETRAIN | {"data": [str(drawn_faces)], "output_dir": str(tmp_path / "run"), "max_minutes": AT_ONCE}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(settings))
    environment = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = run_ranks(ROOT / "training" / "pretrain.py", "--config", tmp_path / "run.yaml", environment=environment)
    assert done.returncode == 0, done.stderr
    assert "Stopped in time at step 1: 2 steps left. Go on with --resume_from_checkpoint latest." in done.stderr
    assert [path.name for path in (tmp_path / "run").glob("checkpoint-*")] == ["checkpoint-1"]
    assert not (tmp_path / "run" / "model.safetensors").exists(), "what is not finished looks finished"
    resumed = settings | {"resume_from_checkpoint": "latest"}
    pause = main(PretrainingArguments(**resumed))
    assert pause == Pause(2, 1, None) and (tmp_path / "run" / "checkpoint-2").is_dir()
    assert main(PretrainingArguments(**resumed)) is None, "the last step ends the run, whatever the clock says"
    assert (tmp_path / "run" / "model.safetensors").is_file()


def test_a_landmark_training_stops_in_time_and_ends_with_the_same_weights(drawn_faces, tmp_path, same_threads):
    """Into the second step, because the first one ends a stage; one step more; then the last one."""
    from train_landmarks import LandmarkTrainingArguments, main

    start = str(save_autoencoder(tmp_path / "start"))
    settings = LANDMARKS | {"data": [str(drawn_faces)], "autoencoder": start}
    assert main(LandmarkTrainingArguments(**settings, output_dir=str(tmp_path / "whole"))) is None
    settings |= {"output_dir": str(tmp_path / "run"), "resume_from_checkpoint": "latest", "max_minutes": AT_ONCE}
    for done in (2, 3):
        assert main(LandmarkTrainingArguments(**settings)) == Pause(done, 4 - done, None)
        assert (tmp_path / "run" / f"checkpoint-{done}").is_dir()
        assert not (tmp_path / "run" / "config.json").exists()
    assert main(LandmarkTrainingArguments(**settings)) is None
    assert equal_weights(tmp_path / "run", tmp_path / "whole")


def test_a_limit_without_time_is_refused():
    from pretrain import PretrainingArguments
    from train_landmarks import LandmarkTrainingArguments

    for kind in (PretrainingArguments, LandmarkTrainingArguments):
        with pytest.raises(ValueError, match="--max_minutes must be more than 0, got 0"):
            kind(data=["faces"], output_dir="run", max_minutes=0)
    both = {"calibrate": "run", "validation_fraction": 0.1, "max_minutes": 5.0}
    with pytest.raises(ValueError, match="leave it out with --calibrate"):
        LandmarkTrainingArguments(data=["faces"], output_dir="run", **both)


def test_a_sweep_begins_no_cell_after_its_time(drawn_faces, tmp_path, same_threads, capsys):
    from fewshot_sweep import SweepArguments, main

    settings = {"data": [str(drawn_faces)], "autoencoder": str(save_autoencoder(tmp_path / "start"))}
    settings |= {"output_dir": str(tmp_path / "sweep"), "validation_fraction": 0.3, "protocols": ["paper"]}
    settings |= {"shots": ["1:0:1", "2:0:2"], "batch_size": 2, "heatmap_size": 16, "heatmap_sigma": 1.0}
    cells = [tmp_path / "sweep" / "cells" / f"{name}.json" for name in ("1-paper-0-0+1", "2-paper-0-0+2")]
    assert main(SweepArguments(**settings, max_minutes=AT_ONCE)) == Pause(1, 2, None)
    assert [cell.exists() for cell in cells] == [True, False]
    assert "Stopped in time at step 1: 2 steps left. Go on with the same command." in capsys.readouterr().err
    assert not (tmp_path / "sweep" / "table.md").exists()
    assert main(SweepArguments(**settings, max_minutes=AT_ONCE)) is None, "the last cell, and then the table"
    assert cells[1].exists() and "| 2 | paper |" in (tmp_path / "sweep" / "table.md").read_text()
