"""`fabrec select`: which faces it leaves out, one face a picture, and what it writes for an annotation tool."""

import csv
import io
import json
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from support.commands import fails_with
from support.faces import draw_face
from support.tiny_checkpoints import save_autoencoder


datasets = pytest.importorskip("datasets")

from fabrec_hf.cli import main  # noqa: E402
from fabrec_hf.cli import select as select_verb  # noqa: E402
from fabrec_hf.cli.select import FoundFace, choose_pictures  # noqa: E402
from fabrec_hf.data import load_faces  # noqa: E402
from fabrec_hf.data.annotation_templates import annotation_template  # noqa: E402
from fabrec_hf.data.readers import open_source  # noqa: E402
from fabrec_hf.errors import DataError  # noqa: E402
from fabrec_hf.inference.face_quality import sharpness  # noqa: E402
from fabrec_hf.learning import fewshot  # noqa: E402
from fabrec_hf.model import face_detection  # noqa: E402
from fabrec_hf.model.face_detection import Detection  # noqa: E402
from fabrec_hf.model.known_schemes import LandmarkScheme, get_scheme  # noqa: E402


def test_sharpness_is_detail_over_contrast():
    # Stripes two pixels wide: the Laplacian is +-d at every pixel of brightness +-d / 2, twice the contrast.
    stripes = np.repeat(np.tile([0, 0, 100, 100], 32)[None, :, None], 128, axis=0).repeat(3, axis=2).astype(np.uint8)
    picture = Image.fromarray(stripes)
    assert sharpness(picture, (0, 0, 100, 100)) == pytest.approx(2, rel=1e-2)
    dark = Image.fromarray((stripes * 0.5).astype(np.uint8))
    assert sharpness(dark, (0, 0, 100, 100)) == pytest.approx(2, rel=1e-2)
    assert sharpness(picture, (-30, -20, 100, 100)) == pytest.approx(2, rel=1e-2)  # what lies beyond is no edge
    assert sharpness(Image.new("RGB", (64, 64)), (0, 0, 64, 64)) == 0 == sharpness(picture, (200, 0, 50, 50))
    face, _, box = draw_face(1, 256)
    blurred = [sharpness(face.filter(ImageFilter.GaussianBlur(radius)), box) for radius in (0, 2, 4, 8)]
    assert blurred == sorted(blurred)[::-1] and blurred[3] < blurred[0] / 4


def face(file):
    return FoundFace(file, (0, 0, 99, 99), True, 1.0)


def test_a_picture_gives_one_face_as_long_as_there_are_others(capsys, monkeypatch):
    # Two blobs of equally long codes; the middle of each is in the group photograph.
    angles = torch.tensor([0.0, 0.05, 1.5, 1.55, -0.05, 1.44])
    latents = 10 * torch.stack([angles.cos(), angles.sin()], dim=1)
    faces = [face(name) for name in ("group", "a", "group", "b", "c", "d")]
    chosen = choose_pictures(faces, latents, np.arange(6), 2)
    assert len({faces[row].file for row in chosen}) == 2
    assert len({row in (2, 3, 5) for row in chosen}) == 2  # one of each blob
    assert capsys.readouterr().err == ""
    # What is left of a picture that was chosen twice is one face, so that it is never chosen twice again.
    rounds = []
    monkeypatch.setattr(fewshot, "choose_faces", lambda latents, count: rounds.append(len(latents)) or [0, 1])
    crowd = [face(name) for name in ("group", "group", "group", "a", "b")]
    assert choose_pictures(crowd, torch.zeros(5, 2), np.arange(5), 2) == [0, 3] and rounds == [5, 3]
    monkeypatch.undo()
    assert len(choose_pictures(faces, latents, np.array([0, 2]), 2)) == 2
    assert "some give several" in capsys.readouterr().err


@pytest.fixture
def photographs(tmp_path, monkeypatch):
    """Five pictures of one face each; the first face is small, the second one blurred."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    boxes = {}
    for index in range(5):
        image, _, box = draw_face(index, 300)
        image = image.filter(ImageFilter.GaussianBlur(8)) if index == 1 else image
        image.save(folder / f"{index}.png")
        boxes[image.tobytes()] = [*box[:2], 51, 40] if index == 0 else box
    detect = lambda image: [Detection(tuple(boxes[image.tobytes()]), 0.9)]  # noqa: E731
    monkeypatch.setattr(face_detection, "default_face_detector", lambda: detect)
    return folder


def test_small_and_blurred_faces_are_left_out_and_a_table_is_ready_to_fill_in(photographs, tmp_path, capsys):
    output, model = tmp_path / "chosen", save_autoencoder(tmp_path / "autoencoder")
    words = ["select", photographs, "--model", model, "--count", "3", "--json", "--output", output]
    words += ["--template", "csv", "--scheme", "mtfl", "--min-sharpness", "0.1"]
    assert main([str(word) for word in words]) == 0
    streams = capsys.readouterr()
    records = json.loads(streams.out)
    assert {record["file"][-5] for record in records} == set("234")
    assert "2 faces are too small or too blurred" in streams.err
    assert all(record["sharpness"] >= 0.1 for record in records)
    for name in ("2.png", "3.png", "4.png"):
        assert (output / "pictures" / name).read_bytes() == (photographs / name).read_bytes()
    # Filled in, the table is what `fabrec fit` learns from.
    lines = (output / "faces.csv").read_text().splitlines()
    lines[1] = ",".join([*lines[1].split(",")[:5], *map(str, range(10))])
    (output / "faces.csv").write_text("\n".join(lines))
    source = open_source("csv", output / "faces.csv", scheme="mtfl")
    filled, empty, _ = source.rows("train")
    np.testing.assert_array_equal(filled["landmarks"], np.arange(10).reshape(5, 2))
    np.testing.assert_allclose(filled["box"], records[0]["box"], atol=0.01)
    assert np.isnan(empty["landmarks"]).all() and Image.open(empty["image"]["path"]).size == (300, 300)


def test_a_face_that_lies_is_encoded_and_shown_upright(tmp_path, monkeypatch):
    image, _, (x, y, width, height) = draw_face(3, 300)
    image.save(tmp_path / "upright.png")
    lying = image.transpose(Image.Transpose.ROTATE_270)  # clockwise: (x, y) comes to (300 - y, x)
    lying.save(tmp_path / "lying.png")
    turned_box = (300 - (y + height / 2) - width / 2, x + width / 2 - height / 2, width, height)
    found = {
        image.tobytes(): Detection((x, y, width, height), 0.9, 4.0),
        lying.tobytes(): Detection(turned_box, 0.9, 90.0),
    }
    monkeypatch.setattr(face_detection, "default_face_detector", lambda: lambda image: [found[image.tobytes()]])
    encoder = select_verb._FaceEncoder(str(save_autoencoder(tmp_path / "autoencoder")), cropped=False)
    (upright,), code = encoder(tmp_path / "upright.png")
    (turned,), other = encoder(tmp_path / "lying.png")
    assert (upright.roll, turned.roll) == (0.0, 90.0)
    found[lying.tobytes()] = Detection(turned_box, 0.9, 0.0)  # as if it were not known to lie
    (unaware,), wrong = encoder(tmp_path / "lying.png")
    assert (other - code).norm() < 0.5 * (wrong - code).norm()
    shown, as_lying, as_upright = (encoder.crop(face).astype(int) for face in (turned, unaware, upright))
    # Interpolated twice, the drawing is a little softer at its edges.
    assert np.abs(shown - as_upright).mean() < 0.2 * np.abs(as_lying - as_upright).mean()


def test_a_template_needs_a_scheme_and_a_place(photographs, tmp_path, capsys):
    assert main(["select", str(photographs), "--template", "cvat"]) == 2
    assert "--template needs --output DIR and --scheme" in capsys.readouterr().err


def test_labels_of_the_tools():
    scheme = LandmarkScheme("eyes", 3, ("left_eye", "right_eye", "nose & tip"), ((0, 1),), edges=((0, 2),))
    (label,) = json.loads(annotation_template("cvat", scheme, [])["cvat_labels.json"])
    assert (label["name"], label["type"]) == ("face", "skeleton")
    assert [(part["name"], part["type"]) for part in label["sublabels"]] == [
        (name, "points") for name in scheme.point_names
    ]
    drawing = ElementTree.fromstring(f"<svg>{label['svg']}</svg>")
    circles = {circle.get("data-node-id"): circle for circle in drawing.iter("circle")}
    assert [circles[str(i + 1)].get("data-label-name") for i in range(3)] == list(scheme.point_names)
    (line,) = drawing.iter("line")
    ends = [circles[line.get(f"data-node-{end}")].get("data-label-name") for end in ("from", "to")]
    assert ends == ["left_eye", "nose & tip"]
    assert (line.get("x1"), line.get("y1")) == (circles["1"].get("cx"), circles["1"].get("cy"))
    view = ElementTree.fromstring(annotation_template("labelstudio", scheme, [])["labelstudio_interface.xml"])
    assert [found.get("value") for found in view.find("KeyPointLabels")] == list(scheme.point_names)
    assert view.find("KeyPointLabels").get("toName") == view.find("Image").get("name")
    assert len(annotation_template("csv", get_scheme("300w"), [])["faces.csv"].decode().split(",")) == 5 + 2 * 68
    with pytest.raises(DataError, match="have no names to annotate by"):
        annotation_template("csv", LandmarkScheme("plain", 2), [])


def test_select_lists_the_faces_that_stand_for_the_most(drawn_faces, tmp_path, capsys):
    autoencoder = save_autoencoder(tmp_path / "autoencoder")
    folder, output = tmp_path / "photographs", tmp_path / "selected"
    folder.mkdir()
    for index, row in enumerate(load_faces(drawn_faces).select(range(7))):
        row["image"].save(folder / f"{index}.png")
    common = ["--model", str(autoencoder), "--cropped"]
    assert main(["select", str(folder), "--count", "3", "--output", str(output), "--json", *common]) == 0
    records = json.loads(capsys.readouterr().out)
    shares = [record["share"] for record in records]
    assert len(records) == 3 and sum(shares) == pytest.approx(1, abs=1e-3) and shares == sorted(shares)[::-1]
    assert all(record["box"] == [0, 0, 96, 96] and not record["detected"] for record in records)
    with open(output / "selected.csv", newline="") as file:
        assert [row["file"] for row in csv.DictReader(file)] == [record["file"] for record in records]
    sheet = np.asarray(Image.open(output / "selected.png"))
    first = np.asarray(Image.open(records[0]["file"]).convert("RGB").resize((156, 156), Image.Resampling.BICUBIC))
    assert np.abs(sheet[2:158, 2:158].astype(int) - first).mean() < 8
    (folder / "broken.png").write_bytes(b"no picture")
    assert main(["select", str(folder), "--count", "3", *common]) == 2, "a picture could not be read"
    captured = capsys.readouterr()
    assert "broken.png" in captured.err and captured.out.count("stands for") == 3
    assert main(["select", str(folder), "--count", "20", *common]) == 2
    assert "only 7 were found" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["folder", "file", "other column"])
def test_pictures_are_chosen_from_a_data_set(drawn_faces, tmp_path, capsys, kind):
    autoencoder, output, data = save_autoencoder(tmp_path / "autoencoder"), tmp_path / "selected", drawn_faces
    words = ["--count", "3", "--output", str(output), "--json", "--model", str(autoencoder), "--cropped"]
    faces = load_faces(drawn_faces).select(range(7))
    if kind != "folder":
        data = tmp_path / "few.parquet"
        (faces.rename_column("image", "photo") if kind == "other column" else faces).select_columns(
            ["photo" if kind == "other column" else "image"]
        ).to_parquet(data)
        words += ["--columns", "image=photo"] if kind == "other column" else []
    assert main(["select", str(data), *words]) == 0
    records = json.loads(capsys.readouterr().out)
    rows = [int(record["file"].removeprefix(f"{data}#")) for record in records]
    assert len(set(rows)) == 3 and max(rows) < (24 if kind == "folder" else 7)
    stem = data.stem
    assert {file.name for file in (output / "pictures").iterdir()} == {f"{stem}-{row:05}.png" for row in rows}
    for row in rows:
        picture = np.asarray(Image.open(output / "pictures" / f"{stem}-{row:05}.png"))
        assert (picture == np.asarray(load_faces(drawn_faces)[row]["image"])).all()
    with open(output / "selected.csv", newline="") as file:
        assert [line["file"] for line in csv.DictReader(file)] == [record["file"] for record in records]


def test_a_row_without_a_picture_is_named(tmp_path, capsys):
    whole = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=np.uint8)).save(whole, "PNG")
    cut = {"image": [{"bytes": whole.getvalue()[:9000], "path": None}]}
    rows = {"image": [{"bytes": b"no picture", "path": None}]}
    features = datasets.Features({"image": datasets.Image()})
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "broken.parquet")
    capsys.readouterr()
    fails_with(capsys, ["select", tmp_path / "broken.parquet", "--count", "1"], "row 0 has no picture")
    datasets.Dataset.from_dict(cut, features=features).to_parquet(tmp_path / "cut.parquet")
    capsys.readouterr()
    assert main(["select", str(tmp_path / "cut.parquet"), "--count", "1"]) == 2
    assert f"error: {tmp_path / 'cut.parquet'}#0: it cannot be read" in capsys.readouterr().err
