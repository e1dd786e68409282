"""Weights in 16-bit shards: saved by the training scripts, read by `from_pretrained` and by everything of ours."""

import json
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from fabrec_hf import FabRecForLandmarkDetection
from fabrec_hf.checkpoints.loading import load_autoencoder, load_landmark_model
from fabrec_hf.checkpoints.weight_files import INDEX_NAME, check_shard_size, save_shards, weight_files
from fabrec_hf.cli import main
from fabrec_hf.demo.comparison import read_checkpoint
from fabrec_hf.demo.uploads import Limits, Uploads
from fabrec_hf.errors import CheckpointError
from fabrec_hf.export.delta import check_delta_folder
from fabrec_hf.hub.contents import gather
from support.commands import fails_with
from support.tiny_checkpoints import save_landmarks


SIZE = "8KB"


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    folder = save_landmarks(tmp_path_factory.mktemp("whole"))
    model = FabRecForLandmarkDetection.from_pretrained(folder)
    with torch.no_grad():
        model.autoencoder.encoder.bn1.running_var.fill_(1e5)  # beyond float16
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def shards(whole, tmp_path) -> Path:
    folder = tmp_path / "shards"
    save_shards(FabRecForLandmarkDetection.from_pretrained(whole), folder, SIZE)
    shutil.copy(whole / "preprocessor_config.json", folder)
    return folder


def rounded(value: torch.Tensor) -> torch.Tensor:
    """A value as 16 bits hold it, back in 32."""
    if not value.is_floating_point():
        return value
    return (value.bfloat16() if value.abs().max() > 65504 else value.half()).float()


def test_shards_are_small_16_bit_files_that_every_loader_reads(whole, shards):
    files = weight_files(shards)
    assert len(files) > 3 and not (shards / "model.safetensors").exists()
    for file in files:
        with safe_open(file, "pt") as content:
            sizes = [content.get_tensor(key) for key in content.keys()]
        assert {value.dtype for value in sizes} <= {torch.float16, torch.bfloat16, torch.int64}
        total = sum(value.numel() * value.element_size() for value in sizes)
        assert total <= 8000 or len(sizes) == 1
    expected = {name: rounded(value) for name, value in load_file(whole / "model.safetensors").items()}
    assert float(expected["autoencoder.encoder.bn1.running_var"][0]) == pytest.approx(1e5, rel=2**-8)
    for model in (FabRecForLandmarkDetection.from_pretrained(shards), load_landmark_model(shards)[0]):
        found = model.state_dict()
        assert model.dtype == torch.float32 and found.keys() == expected.keys()
        assert all(torch.equal(found[name], value) for name, value in expected.items())
    within = load_autoencoder(shards).state_dict()
    assert all(torch.equal(value, expected[f"autoencoder.{name}"]) for name, value in within.items())
    assert json.loads((shards / "config.json").read_text())["dtype"] == "float32"


def test_a_model_that_fits_is_one_file(whole, tmp_path):
    save_shards(FabRecForLandmarkDetection.from_pretrained(whole), tmp_path, "1GB")
    assert [path.name for path in weight_files(tmp_path)] == ["model.safetensors"]
    assert not (tmp_path / INDEX_NAME).exists()


def test_shards_are_published_with_their_index(shards):
    with gather(str(shards), "faces/shards") as contents:
        files = contents.revisions["main"]
        assert {INDEX_NAME, *(path.name for path in weight_files(shards))} <= files.keys()
        assert "model.safetensors" not in files


def test_shards_come_to_the_demonstration_in_an_archive(shards, tmp_path):
    (tmp_path / "web").mkdir()
    names = {path.name for path in weight_files(shards)} | {INDEX_NAME, "config.json", "preprocessor_config.json"}
    uploads = Uploads(tmp_path / "web", Limits(file_bytes=60_000_000))
    for left_out in (None, "model-00002-of-"):
        with zipfile.ZipFile(tmp_path / "web" / "mine.zip", "w") as archive:
            for name in names:
                if left_out is None or not name.startswith(left_out):
                    archive.write(shards / name, name)
        if left_out is None:
            assert read_checkpoint([str(tmp_path / "web" / "mine.zip")], uploads)[1].keys() == names
    with pytest.raises(CheckpointError, match="lacks model-00002-of-"):
        read_checkpoint([str(tmp_path / "web" / "mine.zip")], uploads)


def test_damaged_shards_are_one_clear_error(shards, tmp_path):
    with pytest.raises(CheckpointError, match="holds a whole checkpoint"):
        check_delta_folder(shards)
    names = {file.name for file in weight_files(shards)}
    first = min(names)
    content = (shards / first).read_bytes()
    (shards / first).write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load_landmark_model(shards)
    (shards / first).unlink()
    with pytest.raises(CheckpointError, match=f"lacks {first}.*copy all shards"):
        load_landmark_model(shards)
    (tmp_path / "secret.safetensors").write_bytes(content)
    for index in ({"weight_map": {"a": "../secret.safetensors"}}, {"weight_map": {}}, {"weight_map": [1]}, []):
        (shards / INDEX_NAME).write_text(json.dumps(index))
        with pytest.raises(CheckpointError, match="index"):
            load_autoencoder(shards)


def test_the_command_cuts_a_checkpoint_into_shards(whole, shards, tmp_path, capsys):
    words = ["export", "--model", whole, "--format", "checkpoint", "--output", tmp_path / "out"]
    assert main([str(word) for word in [*words, "--shard-size", SIZE, "--json"]]) == 0
    report = json.loads(capsys.readouterr().out)
    files = weight_files(tmp_path / "out")
    assert report["files"] == [str(file) for file in files] and len(files) > 3
    assert report["bytes"] == sum(file.stat().st_size for file in files)
    for file in files:  # what the scripts save of the same model
        ours, theirs = load_file(file), load_file(shards / file.name)
        assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert load_landmark_model(tmp_path / "out")[1].size.height == 32
    fails_with(capsys, words, "holds a whole checkpoint", "name another folder")
    words[-1] = tmp_path / "new"
    fails_with(capsys, [*words, "--shard-size", "14"], "--shard-size: the shard size is a number with KB, MB or GB")
    fails_with(capsys, [*words, "--int8"], "export a checkpoint without it")
    words[4] = "torch"
    fails_with(capsys, [*words, "--shard-size", SIZE], "--shard-size is for --format checkpoint")
    assert not (tmp_path / "new").exists()


def test_sizes_have_units():
    check_shard_size("14MB")
    check_shard_size("0.5GB")
    for size in ("14", "MB", "-1MB", "0MB", "14 miles"):
        with pytest.raises(ValueError, match="such as 14MB"):
            check_shard_size(size)
