import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fabrec_hf import (
    FabRecAutoencoder,
    FabRecAutoencoderConfig,
    FabRecForLandmarkDetection,
    FabRecImageProcessor,
    get_scheme,
)
from fabrec_hf.cli import main
from fabrec_hf.errors import BoxError
from fabrec_hf.inference.input_files import collect_inputs, distinct_names, parse_boxes
from fabrec_hf.inference.score_words import UNCALIBRATED
from fabrec_hf.model import image_inputs
from fabrec_hf.model.face_detection import YuNetFaceDetector
from support.commands import fails_with
from support.landmark_checkpoints import TINY, save_landmark_model


EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return save_landmark_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def copy_of(checkpoint, tmp_path) -> Path:
    """A checkpoint that a test may damage."""
    folder = tmp_path / "damaged"
    folder.mkdir()
    for file in checkpoint.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


@pytest.fixture
def photo(tmp_path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)).save(path)
    return path


def test_detect_writes_and_prints_what_processor_and_model_give(checkpoint, photo, tmp_path, capsys):
    words = [
        "detect",
        photo,
        "--model",
        checkpoint,
        "--boxes",
        "20,10,30,24",
        "-5,5,20,20",
        "--output",
        tmp_path / "a/b",
    ]
    assert main([*map(str, words), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert [file.name for file in sorted((tmp_path / "a/b").iterdir())] == [
        "photo.csv",
        "photo.json",
        "photo.landmarks.png",
    ]
    assert json.loads((tmp_path / "a/b/photo.json").read_text()) == printed[0]
    assert (printed[0]["width"], printed[0]["height"], printed[0]["scheme"]) == (80, 60, "mtfl")
    assert [face["bbox"] for face in printed[0]["faces"]] == [[20, 10, 30, 24], [-5, 5, 20, 20]]
    names = list(get_scheme("mtfl").point_names)
    assert printed[0]["point_names"] == names
    lines = (tmp_path / "a/b/photo.csv").read_text().splitlines()
    x, y = printed[0]["faces"][1]["keypoints"][2]
    assert lines[0] == "face,point,name,x,y,score,expected_error" and len(lines) == 11
    assert lines[8] == f"2,2,{names[2]},{x},{y},{printed[0]['faces'][1]['scores'][2]},"  # heights alone tell no error

    model = FabRecForLandmarkDetection.from_pretrained(checkpoint)
    inputs = FabRecImageProcessor.from_pretrained(checkpoint)(Image.open(photo), boxes=[[20, 10, 30, 24]])
    with torch.inference_mode():
        fractions = model(inputs["pixel_values"]).landmarks[0]
    # The crop by hand: 20 % of 24 above and 12 % below make 31.68 px of height, the larger side of the square.
    left, top = 20 + 15 - 31.68 / 2, 10 - 4.8
    expected = fractions.numpy() * 31.68 + [left - 0.5, top - 0.5]
    np.testing.assert_allclose(printed[0]["faces"][0]["keypoints"], expected, atol=6e-3)

    overlay = np.asarray(Image.open(tmp_path / "a/b/photo.landmarks.png"))
    assert overlay.shape == (60, 80, 3)
    assert (overlay != np.asarray(Image.open(photo))).any()


def test_detect_prints_one_line_a_picture(checkpoint, photo, capsys):
    assert main(["detect", str(photo), "--model", str(checkpoint), "--boxes", "20,10,30,24"]) == 0
    streams = capsys.readouterr()
    assert streams.out.startswith(f"{photo}: 1 face, mean score 0.")
    assert streams.out.count("\n") == 1
    assert streams.err == f"fabrec detect: {UNCALIBRATED}\n"


def test_a_calibrated_detector_is_said_nothing_of(photo, capsys):
    assert main(["detect", str(photo), "--model", "3fabrec-300w", "--boxes", "20,10,30,24"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("more", [[], ["--small-faces"]])
def test_a_thorough_search_is_made_where_it_is_asked_for(checkpoint, more, monkeypatch, capsys):
    searches, search = [], YuNetFaceDetector._all_faces
    monkeypatch.setattr(
        YuNetFaceDetector,
        "_all_faces",
        lambda self, rgb, *more: searches.append(rgb.shape) or search(self, rgb, *more),
    )
    photograph = str(EXAMPLES / "astronaut.jpg")
    assert main(["detect", photograph, "--model", str(checkpoint), "--device", "cpu", *more]) == 0
    assert searches == [(512, 512, 3)] * len(more)
    assert "1 face" in capsys.readouterr().out


def test_a_picture_is_decoded_once(checkpoint, photo, tmp_path, monkeypatch, capsys):
    decoded, decode = [], image_inputs._pil_to_array
    monkeypatch.setattr(image_inputs, "_pil_to_array", lambda image, name: decoded.append(name) or decode(image, name))
    output = ["--output", str(tmp_path)]
    # A face that is searched for, one of a given box that is looked at closely, and both drawn.
    assert main(["detect", str(EXAMPLES / "astronaut.jpg"), "--model", str(checkpoint), *output]) == 0
    assert len(decoded) == 1
    assert main(["detect", str(photo), "--model", str(checkpoint), "--boxes", "20,10,30,24", *output]) == 0
    assert len(decoded) == 2
    capsys.readouterr()


def test_names_and_numbers_are_drawn_where_they_are_asked_for(checkpoint, photo, tmp_path, capsys):
    words = ["detect", str(photo), "--model", str(checkpoint), "--boxes", "20,10,30,24", "--device", "cpu"]
    pictures = []
    for number, more in enumerate(([], ["--draw-names"], ["--draw-index"])):
        assert main([*words, "--output", str(tmp_path / str(number)), *more]) == 0
        pictures.append(np.asarray(Image.open(tmp_path / str(number) / "photo.landmarks.png")))
    assert all((pictures[one] != pictures[other]).any() for one, other in ((0, 1), (0, 2), (1, 2)))
    capsys.readouterr()
    fails_with(capsys, [*words, "--draw-names"], "--output DIR")


def test_min_score_leaves_points_out(checkpoint, photo, capsys):
    words = ["detect", str(photo), "--model", str(checkpoint), "--boxes", "20,10,30,24", "--json"]
    assert main(words) == 0
    face = json.loads(capsys.readouterr().out)[0]["faces"][0]
    limit = sorted(face["scores"])[2] - 1e-4
    assert main([*words, "--min-score", str(limit)]) == 0
    strict = json.loads(capsys.readouterr().out)[0]["faces"][0]
    assert strict["scores"] == face["scores"]
    for score, kept, point in zip(face["scores"], strict["keypoints"], face["keypoints"], strict=True):
        assert kept == (point if score >= limit else None)


def test_detect_finds_the_faces_of_a_folder(checkpoint, tmp_path, capsys):
    assert main(["detect", str(EXAMPLES), "--model", str(checkpoint), "--output", str(tmp_path), "--json"]) == 0
    records = json.loads(capsys.readouterr().out)
    assert [Path(record["image"]).name for record in records] == ["astronaut.jpg", "grace_hopper.jpg"]
    assert [len(record["faces"]) for record in records] == [1, 1]
    x, y, width, height = records[0]["faces"][0]["bbox"]
    assert x < 204 < 243 < x + width  # her eyes
    assert y < 100 < 150 < y + height  # eyes and mouth
    assert len(list(tmp_path.iterdir())) == 6


def test_pictures_without_a_face_are_reported_and_the_others_go_on(checkpoint, photo, tmp_path, capsys):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    words = ["detect", photo, EXAMPLES / "astronaut.jpg", "--model", checkpoint, "--output", tmp_path / "out"]
    assert main([str(word) for word in words]) == 0
    streams = capsys.readouterr()
    assert streams.out.count("\n") == 1 and "astronaut.jpg: 1 face" in streams.out
    assert f"{photo}: no face found; give its box with --boxes" in streams.err
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "astronaut.csv",
        "astronaut.json",
        "astronaut.landmarks.png",
    }

    words.insert(1, broken)
    assert main([str(word) for word in words]) == 2
    streams = capsys.readouterr()
    assert "astronaut.jpg: 1 face" in streams.out
    assert f"error: {broken}: this is not an image" in streams.err


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
        if path.name.startswith(".photo.json"):
            write(path, content[:10])
            raise OSError(28, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    words = ["detect", photo, "--model", checkpoint, "--boxes", "1,2,30,40", "--output", output]
    fails_with(capsys, words, f"cannot write to {output}: No space left on device")
    assert list(output.iterdir()) == []


def test_names_of_results_do_not_collide():
    paths = [Path(name) for name in ("a/x.jpg", "b/x.jpg", "x.png", "x-2.png", "y.png")]
    assert distinct_names(paths) == ["x", "x-3", "x-4", "x-2", "y"]


def test_collect_inputs_takes_each_once_and_no_overlays(tmp_path):
    for name in ("b.JPG", "a.png", "a.landmarks.png", "a.json", ".hidden.png"):
        (tmp_path / name).touch()
    assert [path.name for path in collect_inputs([tmp_path / "b.JPG", tmp_path])] == ["b.JPG", "a.png"]


def test_parse_boxes():
    assert parse_boxes(["1,2,3,4", " -1.5,0,1e2,7"]) == [(1, 2, 3, 4), (-1.5, 0, 100, 7)]
    with pytest.raises(BoxError, match="not a box"):
        parse_boxes(["1,2,3,4,5"])


def test_exif_orientation_is_applied(checkpoint, tmp_path, capsys):
    turned = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its left side
    upright = Image.open(EXAMPLES / "astronaut.jpg").crop((0, 0, 400, 512))
    upright.transpose(Image.Transpose.ROTATE_90).save(turned, exif=exif, quality=95)
    assert main(["detect", str(turned), "--model", str(checkpoint), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)[0]
    assert (record["width"], record["height"]) == (400, 512)
    x, y, width, height = record["faces"][0]["bbox"]
    assert x < 204 < 243 < x + width
    assert y < 100 < 150 < y + height


def test_usage_errors_take_one_line(capsys):
    for words, fragment in [(["detect"], "IMAGE|VIDEO|FOLDER"), (["dance"], "dance"), ([], "VERB")]:
        with pytest.raises(SystemExit) as exit_info:
            main(words)
        assert exit_info.value.code == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and fragment in error and "--help" in error


@pytest.mark.parametrize("verb", ["detect", "evaluate", "convert-original"])
def test_help_has_an_example(verb, capsys):
    with pytest.raises(SystemExit) as exit_info:
        main([verb, "--help"])
    assert exit_info.value.code == 0
    assert f"example: fabrec {verb} " in capsys.readouterr().out


def test_convert_original_refuses_other_files(tmp_path, capsys):
    fails_with(capsys, ["convert-original", tmp_path / "saae.mdl", tmp_path / "out"], "no such file")
    (tmp_path / "saae.mdl").write_bytes(b"something else")
    fails_with(capsys, ["convert-original", tmp_path / "saae.mdl", tmp_path / "out"], "not a published 3FabRec")
    assert not (tmp_path / "out").exists()


def test_evaluate_scores_a_checkpoint(checkpoint, drawn_faces, capsys):
    data = str(drawn_faces / "train.parquet")
    assert main(["evaluate", "--model", str(checkpoint), "--data", data, "--split", "train", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["count"] == 24 and result["nme"] > 0


@pytest.mark.parametrize(
    "start", [["-c", "import sys; from fabrec_hf.cli import main; sys.exit(main())"], ["-m", "fabrec_hf"]]
)
def test_the_command_runs_as_a_process(checkpoint, photo, start):
    command = [sys.executable, *start]
    words = ["detect", str(photo), "--model", str(checkpoint), "--boxes", "20,10,30,24"]
    done = subprocess.run([*command, *words], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, f"fabrec detect: {UNCALIBRATED}\n")
    assert done.stdout.startswith(f"{photo}: 1 face")


def test_the_module_runs_too():
    done = subprocess.run([sys.executable, "-m", "fabrec_hf.cli", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("fabrec ")
