"""`fabrec detect --to`: what a detector finds, as proposals that a person corrects in an annotation tool."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


datasets = pytest.importorskip("datasets")

from fabrec_hf.cli import main  # noqa: E402
from fabrec_hf.cli.proposals import check_points, write_proposals  # noqa: E402
from fabrec_hf.data.readers import TOOLS, guess_kind, open_source  # noqa: E402
from fabrec_hf.errors import FabRecError, SchemeError  # noqa: E402
from fabrec_hf.model.known_schemes import LandmarkScheme, get_scheme  # noqa: E402
from support.commands import fails_with  # noqa: E402
from support.landmark_checkpoints import save_landmark_model  # noqa: E402


EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_landmark_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "my photos"
    folder.mkdir()
    shutil.copy(EXAMPLES / "astronaut.jpg", folder / "first one.jpg")
    shutil.copy(EXAMPLES / "grace_hopper.jpg", folder / "second.jpg")
    Image.new("RGB", (60, 50)).save(folder / "third.png")  # no face
    return folder


def submit(file):
    """Do in Label Studio what a person does: look through the predictions and submit them."""
    tasks = json.loads(file.read_text())
    for task in tasks:
        task["annotations"] = [{"result": task["predictions"][0]["result"], "was_cancelled": False}]
    file.write_text(json.dumps(tasks))


@pytest.mark.parametrize("tool", TOOLS)
def test_proposals_come_back_as_the_faces_that_were_found(checkpoint, photos, tmp_path, capsys, tool):
    output = tmp_path / "proposals"
    words = ["detect", str(photos), "--model", str(checkpoint), "--to", tool, "--output", str(output), "--json"]
    assert main(words) == 0
    printed = capsys.readouterr()
    found = [record for record in json.loads(printed.out) if record["faces"]]
    assert [Path(record["image"]).name for record in found] == ["first one.jpg", "second.jpg"]
    assert "2 faces of 2 pictures" in printed.err
    if tool == "labelstudio":
        tasks = json.loads((output / "tasks.json").read_text())
        assert tasks[0]["data"]["image"] == "/data/local-files/?d=my%20photos/first%20one.jpg"
        scores = found[0]["faces"][0]["scores"]
        assert tasks[0]["predictions"][0]["score"] == pytest.approx(np.mean(scores), abs=1e-4)
        assert tasks[0]["predictions"][0]["model_version"] == str(checkpoint)
        submit(output / "tasks.json")
    setup = {"cvat": {"cvat_labels.json"}, "labelme": {"labels.txt"}, "via": set()}
    setup |= {"labelstudio": {"labelstudio_interface.xml"}, "dlib": set()}
    assert setup[tool] <= {file.name for file in output.iterdir()}
    assert guess_kind(output) == tool
    source = open_source(tool, output, images=photos)
    for row, record in zip(source.rows("train"), found, strict=True):
        (face,) = record["faces"]
        np.testing.assert_allclose(row["landmarks"], face["keypoints"], atol=0.501 if tool == "dlib" else 1e-3)
        assert Path(row["image"]["path"]).resolve() == (photos / Path(record["image"]).name).resolve()
        if tool == "cvat":
            assert row["box"] is None
        else:
            np.testing.assert_allclose(row["box"], face["bbox"], atol=1.001 if tool == "dlib" else 1e-3)
    capsys.readouterr()
    fails_with(capsys, words, "exists already, and may have been corrected")


def test_proposals_as_pts_files(checkpoint, photos, tmp_path, capsys):
    output = tmp_path / "proposals"
    words = ["detect", str(photos), "--model", str(checkpoint), "--to", "pts", "--output", str(output), "--json"]
    assert main(words) == 0
    found = [record for record in json.loads(capsys.readouterr().out) if record["faces"]]
    assert sorted(file.name for file in output.iterdir()) == ["first one.pts", "second.pts"]
    rows = list(open_source("pts", photos, annotations=output).rows("train"))
    for row, record in zip(rows, found, strict=True):
        np.testing.assert_allclose(row["landmarks"], record["faces"][0]["keypoints"], atol=1e-4)
    fails_with(capsys, words, "first one.pts exists already, and may have been corrected")


class Finder98:
    name, scheme, num_landmarks = "mine", get_scheme("wflw"), 98


def test_proposals_as_a_list_of_wflw(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.new("RGB", (60, 50)).save(photos / "a.png")
    Image.new("RGB", (60, 50)).save(photos / "b.png")
    points = [[index / 2, index / 4 + 1] for index in range(98)]
    face = {"keypoints": points, "scores": [0.5] * 98, "bbox": [1.4, 2, 30.2, 40]}
    size = {"width": 60, "height": 50}
    records = [
        {"image": str(photos / "a.png"), "faces": [face, face | {"roll": 45.0}], **size},
        {"image": str(photos / "b.png"), "faces": [face], **size},
    ]
    written = write_proposals("wflw", tmp_path / "out", records, Finder98())
    assert f"The pictures are named from {photos}" in written
    lines = (tmp_path / "out" / "list_98pt_rect_attr.txt").read_text().splitlines()
    assert [len(line.split()) for line in lines] == [207] * 3
    assert lines[0].startswith("0.0 1.0 0.5 1.25 1.0 1.5 ") and lines[0].endswith(" 1 2 32 42 0 0 0 0 0 0 a.png")
    assert lines[1].endswith(" 0 1 48 25 0 0 0 0 0 0 a.png")  # the tight box: 97 / 2 and 97 / 4 + 1, rounded
    assert guess_kind(tmp_path / "out") == guess_kind(tmp_path / "out" / "list_98pt_rect_attr.txt") == "wflw"
    rows = list(open_source("wflw", tmp_path / "out", images=photos).rows("train"))
    np.testing.assert_array_equal([row["landmarks"] for row in rows], np.float32([points] * 3))
    assert [Path(row["image"]["path"]).name for row in rows] == ["a.png", "a.png", "b.png"]


def test_forms_that_cannot_hold_what_a_detector_finds():
    check_points("labelme", 5, 0.5)
    check_points("wflw", 98, None)
    with pytest.raises(SchemeError, match="lists of WFLW hold 98 points each, not 68"):
        check_points("wflw", 68, None)
    with pytest.raises(FabRecError, match="whole faces alone: leave out --min-score"):
        check_points("wflw", 98, 0.5)


class Finder:
    name, scheme, num_landmarks = "mine", None, 2


def test_faces_that_are_turned_left_out_or_uncertain(tmp_path):
    Image.new("RGB", (60, 50)).save(tmp_path / "a.png")
    common = {"bbox": [1, 2, 30, 40], "scores": [0.5, 0.25]}
    faces = [
        {"keypoints": [[1.5, 2], None], **common},
        {"keypoints": [[11, 12], [13, 14]], **common, "roll": 90.0},
        {"keypoints": [[0, 0], [0, 0]], **common, "is_face": False},
    ]
    record = {"image": str(tmp_path / "a.png"), "width": 60, "height": 50, "faces": faces}
    written = write_proposals("labelme", tmp_path / "out", [record], Finder())
    assert written.startswith(f"2 faces of 1 pictures -> {tmp_path / 'out'}. Run: labelme {tmp_path} --output ")
    first, second = open_source("labelme", tmp_path / "out").rows("train")
    np.testing.assert_array_equal(first["landmarks"], [[1.5, 2], [np.nan, np.nan]])
    np.testing.assert_array_equal(second["landmarks"], [[11, 12], [13, 14]])
    assert first["box"].tolist() == [1, 2, 30, 40] and second["box"] is None  # tools know no turned box
    assert open_source("labelme", tmp_path / "out").scheme == LandmarkScheme("custom", 2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["photo.jpg", "--to", "cvat"], "say where to write them with --output DIR"),
        (["photo.jpg", "--to", "cvat", "--output", "o", "--draw-names"], "are for drawings, and --to writes none"),
        (["clip.mp4", "--to", "cvat", "--output", "o"], "--to is for pictures: take frames out of videos first"),
        (["photo.jpg", "photo.png", "--to", "labelme", "--output", "o"], "Two pictures are called photo"),
        (["photo.jpg", "photo.png", "--to", "pts", "--output", "o"], "Two pictures are called photo, and pts tells"),
        (
            ["photo.jpg", "more/other.png", "--to", "pts", "--output", "o"],
            "--to pts is for the pictures of one folder",
        ),
        (["a face.jpg", "--to", "wflw", "--output", "o"], "The lists of WFLW cannot name 'a face.jpg'"),
    ],
)
def test_proposals_that_cannot_be_written(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    Path("more").mkdir()
    for name in ("photo.jpg", "photo.png", "a face.jpg", "more/other.png"):
        Image.new("RGB", (60, 50)).save(name)
    Path("clip.mp4").write_bytes(b"")
    fails_with(capsys, ["detect", *words], message)
    assert not Path("o").exists()
