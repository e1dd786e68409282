"""What `fabrec detect` refuses: one line that says what to do, and nothing written."""

import json
import os
from pathlib import Path

import pytest

from fabrec_hf import (
    FabRecAutoencoder,
    FabRecAutoencoderConfig,
    FabRecImageProcessor,
)
from support.commands import fails_with
from support.landmark_checkpoints import TINY


EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def copy_of(checkpoint, tmp_path) -> Path:
    """A checkpoint that a test may damage."""
    folder = tmp_path / "damaged"
    folder.mkdir()
    for file in checkpoint.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_no_face_at_all_fails_and_writes_nothing(checkpoint, photo, tmp_path, capsys):
    output = tmp_path / "out"
    words = ["detect", photo, "--model", checkpoint, "--output", output]
    fails_with(capsys, words, str(photo), "no face found", "--boxes x,y,w,h")
    fails_with(capsys, [*words, "--json"], "no face found")
    assert not output.exists()


@pytest.mark.parametrize(
    ("box", "fragment"),
    [
        ("1,2,3", "'1,2,3' is not a box: write x,y,width,height"),
        ("1,2,3,x", "'1,2,3,x' is not a box"),
        ("10,10,0,20", "has no area"),
        ("-10,10,5,-1", "-10,10,5,-1 has no area"),
        ("nan,0,5,5", "not finite"),
        ("80,0,10,10", "80,0,10,10 lies outside this picture of 80 x 60 pixels"),
        ("-30,-30,30,30", "lies outside"),
    ],
)
def test_bad_boxes(checkpoint, photo, tmp_path, capsys, box, fragment):
    words = ["detect", photo, "--model", checkpoint, "--output", tmp_path / "out", "--boxes", box]
    fails_with(capsys, words, fragment)
    assert not (tmp_path / "out").exists()


def test_boxes_belong_to_one_picture(checkpoint, photo, capsys):
    words = ["detect", photo, EXAMPLES / "astronaut.jpg", "--model", checkpoint, "--boxes", "1,2,30,40"]
    fails_with(capsys, words, "--boxes are those of one picture, but 2 were given")
    fails_with(capsys, ["detect", photo, "--boxes", "1,2,30,40", photo], "name the picture before --boxes")


def test_bad_pictures(checkpoint, photo, tmp_path, capsys):
    truncated = tmp_path / "truncated.png"
    truncated.write_bytes(photo.read_bytes()[:5000])
    empty = tmp_path / "empty"
    empty.mkdir()
    text = tmp_path / "text.jpg"
    text.write_text("hello")
    for path, fragment in [
        (tmp_path / "missing.jpg", "missing.jpg: no such file"),
        (text, "text.jpg: this is not an image"),
        (truncated, "truncated.png: it cannot be read: "),
        (empty, "empty: no picture or video in this folder"),
    ]:
        output = tmp_path / "out"
        fails_with(capsys, ["detect", path, "--model", checkpoint, "--output", output], fragment)
        assert not output.exists()


def test_bad_checkpoints(checkpoint, photo, tmp_path, capsys):
    autoencoder = tmp_path / "autoencoder"
    FabRecAutoencoder(FabRecAutoencoderConfig(**TINY)).save_pretrained(autoencoder)
    (tmp_path / "nothing").mkdir()
    for name, fragment in [
        (tmp_path / "missing", "No checkpoint"),
        ("no-such-name", "No checkpoint 'no-such-name'"),
        (tmp_path / "nothing", "no config.json"),
        (autoencoder, "is an autoencoder, which finds no landmarks"),
    ]:
        fails_with(capsys, ["detect", photo, "--model", name, "--boxes", "1,2,30,40"], fragment)


def _remove_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _cut_weights(folder: Path) -> None:
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])


def _change_config(**fields):
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | fields))

    return change


def _break_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "fabrec",')


def _drop_a_weight(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    weights.pop("heatmap_head.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _remove_processor(folder: Path) -> None:
    (folder / "preprocessor_config.json").unlink()


def _resize_processor(folder: Path) -> None:
    FabRecImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)


@pytest.mark.parametrize(
    ("damage", "fragment"),
    [
        (_remove_weights, "cannot be loaded"),
        (_cut_weights, "cannot be loaded"),
        (_break_config, "cannot be loaded"),
        (_remove_processor, "has no preprocessor_config.json"),
        (_drop_a_weight, "is incomplete: it lacks heatmap_head.weight."),
        (_change_config(num_landmarks=7), "5 points but num_landmarks is 7"),
        (_change_config(num_landmarks=7, landmark_scheme=None), "heatmap_head"),
        (_change_config(model_type="bert"), "'bert'"),
        (_resize_processor, "makes crops of 64 px, its model takes 32 px"),
    ],
)
def test_damaged_checkpoints(copy_of, photo, tmp_path, capsys, damage, fragment):
    damage(copy_of)
    words = ["detect", photo, "--model", copy_of, "--boxes", "1,2,30,40", "--output", tmp_path / "out"]
    fails_with(capsys, words, fragment)
    assert not (tmp_path / "out").exists()


def test_output_that_cannot_be_written(checkpoint, photo, capsys):
    words = ["detect", photo, "--model", checkpoint, "--boxes", "1,2,30,40", "--output"]
    fails_with(capsys, [*words, photo / "out"], "is not a folder")
    fails_with(capsys, [*words, photo], "is not a folder")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="permissions do not bind the superuser")
def test_output_without_permission(checkpoint, photo, tmp_path, capsys):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    words = ["detect", photo, "--model", checkpoint, "--boxes", "1,2,30,40", "--output", locked / "out"]
    fails_with(capsys, words, "permission denied")


def test_a_failed_write_leaves_nothing(checkpoint, photo, tmp_path, capsys, monkeypatch):
    output = tmp_path / "out"
    write = Path.write_bytes

    def full_disk(path, content):
        if content.startswith(b"{"):  # the JSON, behind the drawing
            write(path, content[:10])
            raise OSError(28, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    words = ["detect", photo, "--model", checkpoint, "--boxes", "1,2,30,40", "--output", output]
    fails_with(capsys, words, f"cannot write to {output}: No space left on device")
    assert list(output.iterdir()) == []
