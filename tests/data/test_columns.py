"""Data sets as people have them: an image and its points, under whatever names."""

import json

import datasets
import numpy as np
import pytest
from PIL import Image

from fabrec_hf.cli import main
from fabrec_hf.data import load_faces
from fabrec_hf.data.face_boxes import points_box
from fabrec_hf.errors import DataError
from support.commands import fails_with
from support.faces import draw_face
from support.hub_client import run_python
from support.tiny_checkpoints import save_landmarks


LABELED = ("image", "landmarks", "box")
NAN = float("nan")


def write(path, landmarks, name="landmarks", **columns):
    """Write faces of 8 x 6 pixels."""
    images = [Image.new("RGB", (8, 6), (row, 0, 0)) for row in range(len(landmarks))]
    point = datasets.List(datasets.List(datasets.Value("float32")))
    features = {"image": datasets.Image(), name: point}
    features |= {key: datasets.List(datasets.Value("float32")) for key in columns}
    rows = {"image": images, name: landmarks} | columns
    datasets.Dataset.from_dict(rows, features=datasets.Features(features)).to_parquet(path)
    return path


def test_a_tight_box_holds_the_points_that_are_annotated():
    assert points_box([[2, 1], [5, 7], [NAN, 9], None, [3, 3]]).tolist() == [2, 1, 3, 6]
    assert points_box([[2, 1], [2, 7]]) is None  # no area
    assert points_box([[NAN, NAN], None]) is None
    assert points_box([]) is None


@pytest.mark.parametrize("streaming", [False, True])
def test_points_alone_make_the_boxes(tmp_path, caplog, streaming):
    points = [[[1, 1], [5, 2], [3, 4]], [[0, 0], [NAN, 5], [7, 3]], [[NAN, NAN]] * 3]
    file = write(tmp_path / "faces.parquet", points)
    rows = list(load_faces(file, columns=LABELED, streaming=streaming))
    assert [row["box"] for row in rows] == [[1, 1, 4, 3], [0, 0, 7, 3], None]
    assert [row["image"].getpixel((0, 0))[0] for row in rows] == [0, 1, 2]
    assert caplog.messages == [f"{file} has no column box: the box of a face is the tight box of its points."]


def test_boxes_that_are_there_are_kept(tmp_path, caplog):
    file = write(tmp_path / "faces.parquet", [[[1, 1], [5, 2], [3, 4]]], box=[[0, 0, 8, 6]])
    assert load_faces(file, columns=LABELED)[0]["box"] == [0, 0, 8, 6]
    assert caplog.messages == []


def test_columns_have_the_names_that_people_give_them(tmp_path):
    file = write(tmp_path / "faces.parquet", [[[1, 1], [5, 2], [3, 4]]], name="keypoints", bbox=[[0, 0, 8, 6]])
    faces = load_faces(file, columns=LABELED, names={"landmarks": "keypoints", "box": "bbox"})
    assert sorted(faces.column_names) == ["box", "image", "landmarks"]
    assert faces[0]["landmarks"] == [[1, 1], [5, 2], [3, 4]] and faces[0]["box"] == [0, 0, 8, 6]
    with pytest.raises(DataError, match="no column landmarks, box; expected image, landmarks, box, found"):
        load_faces(file, columns=LABELED)
    with pytest.raises(DataError, match="no column points"):
        load_faces(file, columns=LABELED, names={"landmarks": "points"})


def test_a_visibility_of_coco_says_which_points_are_annotated(tmp_path, caplog):
    file = write(tmp_path / "faces.parquet", [[[1, 1, 2], [5, 2, 1], [0, 0, 0]]], name="keypoints")
    row = load_faces(file, columns=LABELED, names={"landmarks": "keypoints"})[0]
    np.testing.assert_equal(row["landmarks"], [[1, 1], [5, 2], [NAN, NAN]])
    assert row["box"] == [1, 1, 4, 1]


def test_pictures_need_not_be_declared_as_pictures(tmp_path):
    file = write(tmp_path / "faces.parquet", [[[1, 1], [5, 2], [3, 4]]])
    plain = load_faces(file)
    encoded = plain.cast_column("image", datasets.Image(decode=False))[0]["image"]["bytes"]
    other = datasets.Dataset.from_dict({"image": [encoded], "landmarks": [[[1, 1], [5, 2], [3, 4]]]})
    other.to_parquet(tmp_path / "binary.parquet")
    assert load_faces(tmp_path / "binary.parquet", columns=LABELED)[0]["image"].size == (8, 6)


@pytest.fixture
def people(tmp_path):
    """Drawn faces with their five points as `keypoints`, and nothing else."""
    drawn = [draw_face(index) for index in range(6)]
    point = datasets.List(datasets.List(datasets.Value("float32")))
    features = datasets.Features({"image": datasets.Image(), "keypoints": point})
    rows = {"image": [face[0] for face in drawn], "keypoints": [face[1].tolist() for face in drawn]}
    folder = tmp_path / "people"
    folder.mkdir()
    datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / "test.parquet")
    return folder


def test_evaluate_takes_points_alone(people, tmp_path, capsys):
    """The same score as with the tight boxes written down."""
    checkpoint = save_landmarks(tmp_path / "checkpoint")
    words = ["evaluate", "--model", str(checkpoint), "--json", "--data"]
    assert main([*words, str(people), "--columns", "landmarks=keypoints"]) == 0
    measured = json.loads(capsys.readouterr().out)
    faces = load_faces(people)
    faces = faces.rename_column("keypoints", "landmarks")
    boxes = []
    for points in np.array(faces["landmarks"]):
        (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
        boxes.append([left, top, right - left, bottom - top])
    faces.add_column("box", boxes).to_parquet(tmp_path / "boxed.parquet")
    assert main([*words, str(tmp_path / "boxed.parquet")]) == 0
    expected = json.loads(capsys.readouterr().out)
    assert measured["nme"] == pytest.approx(expected["nme"], rel=1e-6) and measured["count"] == 6


def test_fit_takes_points_alone(people, few_crops, tmp_path, capsys):
    words = ["fit", people, "--columns", "landmarks=keypoints", "--instant", "--folds", "0", "--json"]
    assert main([*map(str, words), "--output", str(tmp_path / "detector")]) == 0
    results = json.loads(capsys.readouterr().out)
    assert results["faces"] == 6 and results["points"] == 5


def test_mistakes_with_columns_take_one_line(people, tmp_path, capsys):
    words = ["evaluate", "--data", people]
    fails_with(capsys, words, "no column landmarks", "found image, keypoints")
    fails_with(capsys, [*words, "--columns", "keypoints"], "takes pairs as landmarks=keypoints")
    fails_with(capsys, [*words, "--columns", "points=keypoints"], "of image, landmarks, box, not 'points'")
    table = tmp_path / "faces.csv"
    table.write_text("image,x0,y0\n")
    fit = ["fit", table, "--output", tmp_path / "detector", "--columns", "landmarks=keypoints"]
    fails_with(capsys, fit, "--columns is for Parquet and Hub data sets")


def test_a_data_set_is_read_by_its_name_on_the_hub(hub, people, tmp_path):
    api = hub.api()
    api.create_repo("faces/people", repo_type="dataset")
    api.upload_folder(repo_id="faces/people", repo_type="dataset", folder_path=people, path_in_repo="data")
    script = """
import json
from fabrec_hf.data import load_faces
from fabrec_hf.errors import DataError
faces = load_faces("faces/people", "test", ("image", "landmarks", "box"), names={"landmarks": "keypoints"})
try:
    load_faces("faces/nobody", "test")
except DataError as error:
    message = str(error)
face = faces[0]
found = {"points": len(face["landmarks"]), "box": face["box"], "count": len(faces), "message": message}
print("FOUND", json.dumps(found))
"""
    found = run_python(script, environment=hub.environment(tmp_path))
    points = draw_face(0)[1]
    assert found["points"] == 5 and found["count"] == 6
    expected = [*points.min(axis=0), *(points.max(axis=0) - points.min(axis=0))]
    np.testing.assert_allclose(found["box"], expected, rtol=1e-5)
    assert found["message"].startswith("There is no file or folder faces/nobody, and no data set of that name")
