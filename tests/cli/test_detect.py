"""What `fabrec detect` finds, prints and writes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fabrec_hf import (
    FabRecForLandmarkDetection,
    FabRecImageProcessor,
    get_scheme,
)
from fabrec_hf.cli import main
from fabrec_hf.inference.score_words import UNCALIBRATED
from fabrec_hf.model import image_inputs
from fabrec_hf.model.face_detection import YuNetFaceDetector
from support.commands import fails_with


EXAMPLES = Path(__file__).parents[2] / "examples"


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
    monkeypatch.setattr(
        image_inputs, "_pil_to_array", lambda image, name: decoded.append(image.size) or decode(image, name)
    )
    output = ["--output", str(tmp_path)]
    # A face that is searched for, one of a given box that is looked at closely, and both drawn.
    assert main(["detect", str(EXAMPLES / "astronaut.jpg"), "--model", str(checkpoint), *output]) == 0
    size = Image.open(EXAMPLES / "astronaut.jpg").size
    assert decoded.count(size) == 1  # a face that is drawn enlarged is another picture
    decoded.clear()
    assert main(["detect", str(photo), "--model", str(checkpoint), "--boxes", "20,10,30,24", *output]) == 0
    assert decoded.count(Image.open(photo).size) == 1
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
