"""What the demonstration computes: detection, camera, latent space, comparison. With the embedded checkpoints."""

import csv
import io
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps

from fabrec_hf.checkpoints.names import weights_path
from fabrec_hf.demo.comparison import compare, differing_points, read_checkpoint, read_labels
from fabrec_hf.demo.detection import find_faces
from fabrec_hf.demo.latent import SPREAD, LatentExplorer, animate, direction_labels
from fabrec_hf.demo.models import ModelShelf
from fabrec_hf.demo.uploads import Limits, Uploads, decode_picture
from fabrec_hf.errors import CheckpointError, DataError, ImageError
from fabrec_hf.model.geometry import crop_box_from_box
from support.tiny_checkpoints import save_autoencoder, save_landmarks


EXAMPLES = Path(__file__).parents[2] / "examples"
LIMITS = Limits()

if not EXAMPLES.is_dir():
    pytest.skip("only in a checkout", allow_module_level=True)


@pytest.fixture(scope="module")
def shelf():
    return ModelShelf()


def photograph(name="astronaut.jpg", side=None):
    return decode_picture((EXAMPLES / name).read_bytes(), name, LIMITS, side)


@pytest.fixture(scope="module")
def found(shelf):
    return find_faces(photograph(), shelf.finder(), shelf, LIMITS)


def test_landmarks_are_those_of_the_finder(shelf, found):
    finder = shelf.finder()
    boxes = finder.detect(photograph().image)
    (expected,) = finder.find([photograph().image], [boxes])[0]
    (face,) = found.faces
    np.testing.assert_allclose(face.keypoints, expected["keypoints"], atol=1e-3)
    np.testing.assert_allclose(face.scores, expected["scores"], atol=1e-5)
    assert face.crop.shape == face.reconstruction.shape == (128, 128, 3)
    assert face.heat.shape == face.explained.shape == (128, 128)
    assert 0 <= face.explained.min() and 0.3 < face.heat.max() <= 1


def test_reconstructions_are_those_of_the_autoencoder(shelf, found):
    """The landmark model's own encoder has forgotten colors: 58 gray levels off on average, not about 20."""
    face = found.faces[0]
    assert np.abs(face.crop.astype(float) - face.reconstruction).mean() < 35


def test_a_model_of_another_size_reconstructs_by_itself(shelf, tmp_path):
    finder = shelf.finder(save_landmarks(tmp_path / "tiny"))
    tiny = find_faces(photograph(), finder, shelf, LIMITS).faces[0]
    assert tiny.reconstruction.shape == (32, 32, 3) and tiny.keypoints.shape == (5, 2)


def test_files_refer_to_the_pixels_of_the_file(shelf, found):
    small = find_faces(photograph(side=256), shelf.finder(), shelf, LIMITS)
    assert small.photograph.image.size == (256, 256) and small.photograph.size == (512, 512)
    files = small.files()
    assert list(files) == ["astronaut.json", "astronaut.csv", "astronaut.landmarks.png"]
    record = json.loads(files["astronaut.json"])
    assert (record["image"], record["width"], record["model"]) == ("astronaut.jpg", 512, "3fabrec-300w")
    difference = np.array(record["faces"][0]["keypoints"]) - found.faces[0].keypoints
    assert np.abs(np.median(difference, axis=0)).max() < 3  # of a face of 90 pixels
    rows = list(csv.DictReader(io.StringIO(files["astronaut.csv"].decode())))
    assert len(rows) == 68 and float(rows[30]["x"]) == record["faces"][0]["keypoints"][30][0]
    expected = np.array(record["faces"][0]["expected_errors"])  # of a face of 90 pixels, in pixels of the file
    assert [float(row["expected_error"]) for row in rows] == expected.tolist() and 0.3 < expected.mean() < 6
    assert expected == pytest.approx(2 * small.faces[0].expected_errors, abs=0.01)
    assert Image.open(io.BytesIO(files["astronaut.landmarks.png"])).size == (256, 256 + 128)  # and the face below


def test_the_threshold_leaves_out_the_unsure(found):
    scores = found.faces[0].scores
    limit = float(np.median(scores))
    points = found.record(limit)["faces"][0]["keypoints"]
    assert [point is None for point in points] == (scores < limit).tolist()
    assert np.abs(np.asarray(found.overlay(limit), float) - np.asarray(found.overlay(), float)).max() > 50


def test_the_close_up_shows_landmarks_where_they_are(found):
    """A landmark's color is found where it lies in the crop, worked out from its place in the photograph."""
    (face,) = found.faces
    drawn, plain = (np.asarray(picture, float) for picture in (found.landmark_picture(0), found.slider_pictures(0)[0]))
    x, y, width, height = crop_box_from_box(face.box)
    places = ((face.keypoints + 0.5 - (x, y)) / (width, height) * drawn.shape[0]).round().astype(int)
    changed = np.abs(drawn - plain).max(axis=-1)
    inside = [(column, row) for column, row in places if 0 <= column < len(drawn) and 0 <= row < len(drawn)]
    assert len(inside) > 60
    assert np.median([changed[row, column] for column, row in inside]) > 30 > np.median(changed)
    assert np.array_equal(np.asarray(found.landmark_picture(0, 1.0)), plain)  # no score reaches 1


def test_several_faces_and_none(shelf):
    both = Image.new("RGB", (1024, 600))
    for place, name in enumerate(("astronaut.jpg", "grace_hopper.jpg")):
        both.paste(ImageOps.contain(photograph(name).image, (512, 600)), (512 * place, 0))
    file = io.BytesIO()
    both.save(file, "PNG")
    faces = find_faces(decode_picture(file.getvalue(), "both.png", LIMITS), shelf.finder(), shelf, LIMITS)
    assert len(faces.faces) == 2 and len(faces.record()["faces"]) == 2
    only = find_faces(faces.photograph, shelf.finder(), shelf, Limits(faces=1))
    assert len(only.faces) == 1
    gray = decode_picture(file.getvalue(), "gray.png", LIMITS)
    gray = type(gray)("gray.png", Image.new("RGB", (320, 240), (90, 90, 90)), (320, 240))
    none = find_faces(gray, shelf.finder(), shelf, LIMITS)
    assert none.faces == () and none.record()["faces"] == [] and none.overlay().size == (320, 240)


def test_random_faces_are_those_of_the_seed(shelf):
    explorer = LatentExplorer(shelf.finder(), shelf)
    few, more = explorer.random_faces(3, 2, 0.5), explorer.random_faces(3, 3, 0.5)
    for (face, heat), (again, heat_again) in zip(few, more, strict=False):
        # Another batch size may change the last bit of a color.
        assert np.abs(np.asarray(face, int) - np.asarray(again, int)).max() <= 1
        assert np.abs(np.asarray(heat, int) - np.asarray(heat_again, int)).max() <= 2
    other = explorer.random_faces(4, 1, 0.5)[0][0]
    assert np.abs(np.asarray(few[0][0], float) - np.asarray(other, float)).mean() > 3
    mean = explorer._distribution.mean
    assert torch.allclose((explorer.latents(3, 1, 1.0) - mean) * 0.5 + mean, explorer.latents(3, 1, 0.5), atol=1e-5)
    for seed in (-1, 2**32, 0.5):
        with pytest.raises(DataError, match="whole number"):
            explorer.latents(seed, 1, 1.0)


def test_an_interpolation_begins_and_ends_at_its_faces(shelf):
    explorer = LatentExplorer(shelf.finder(), shelf)
    first, last = (explorer.encode(photograph(name)) for name in ("astronaut.jpg", "grace_hopper.jpg"))
    way = explorer.interpolate(first, last, 5)
    assert len(way.frames) == 5 and way.landmarks.shape == (5, 68, 2)
    back = explorer.interpolate(last, first, 5)
    np.testing.assert_allclose(way.landmarks, back.landmarks[::-1], atol=1e-3)
    with torch.inference_mode():
        pixels = shelf.autoencoder.decode(first)
        expected = shelf.finder().model(pixels).landmarks[0]
    np.testing.assert_allclose(way.landmarks[0], expected, atol=1e-3)
    steps = np.abs(np.diff(way.landmarks, axis=0)).mean(axis=(1, 2))
    assert 0 < steps.max() < 0.2
    assert Image.open(io.BytesIO(animate(way.frames))).n_frames == 8  # there and back
    with pytest.raises(ImageError, match="No face was found in photo"):
        explorer.encode(type(photograph())("photo", Image.new("RGB", (200, 200)), (200, 200)))


@pytest.fixture(scope="module")
def explorer(shelf):
    return LatentExplorer(shelf.finder(), shelf)


@pytest.fixture(scope="module")
def directions(explorer):
    found = explorer.directions()
    assert found.vectors.shape == (7, 99)
    return found


def test_random_faces_are_faces_without_noise_in_their_corners(explorer):
    """A smooth picture differs from its own blur by little; colored noise in a block of 16 px by more than 0.05."""
    with torch.inference_mode():
        drawn = explorer._decode(explorer.latents(100, 60, 1.0))
        plain = explorer._decode(torch.randn(60, 99, generator=torch.Generator().manual_seed(100)))
    noisy = []
    for pictures in (drawn, plain):
        colors = pictures - pictures.mean(dim=1, keepdim=True)
        rough = (colors - F.avg_pool2d(colors, 3, 1, 1)).square().mean(dim=1, keepdim=True)
        noisy.append((F.avg_pool2d(rough, 16).amax(dim=(1, 2, 3)).sqrt() > 0.05).float().mean().item())
    assert noisy[0] < 0.02 < 0.1 < noisy[1]


def test_random_faces_of_an_autoencoder_that_was_not_measured_are_normal(tmp_path):
    shelf = ModelShelf(save_landmarks(tmp_path / "model"), str(save_autoencoder(tmp_path / "tiny")))
    latents = LatentExplorer(shelf.finder(), shelf).latents(5, 4000, 2.0)
    assert latents.std(dim=0) == pytest.approx(2.0, abs=0.15) and latents.mean(dim=0) == pytest.approx(0.0, abs=0.15)


@pytest.mark.parametrize("start", ["photograph", "seed"])
def test_directions_move_landmarks_first_and_then_the_picture(explorer, directions, start):
    base = explorer.encode(photograph()) if start == "photograph" else explorer.latents(0, 1, SPREAD)

    def moved(direction):
        ends = explorer.interpolate(base - 0.5 * direction, base + 0.5 * direction, 2).landmarks
        return np.linalg.norm(ends[1] - ends[0])

    lengths = dict(zip(directions.labels, map(moved, directions.vectors), strict=True))
    light = max(lengths["Light 1"], lengths["Light 2"])
    assert min(lengths["Pose 1"], lengths["Pose 2"]) > 2 * light  # poses move landmarks, light does not
    others = explorer.latents(3, 6, 1.0) - explorer._distribution.mean
    others *= (directions.vectors[0].norm() / others.norm(dim=1))[:, None]
    assert lengths["Pose 1"] > 2 * np.mean([moved(other) for other in others])


def test_light_changes_the_picture_and_the_mouth_its_form(explorer, directions):
    base, count = explorer.encode(photograph()), len(directions.labels)
    still = np.asarray(explorer.face_along(base, directions, [0.0] * count), float)
    assert still.shape == (448, 448, 3)
    plain = explorer.interpolate(base, base, 2).frames[0].resize((448, 448))
    assert np.abs(still - np.asarray(plain, float)).mean() < 8  # the same face and points, drawn larger
    change = {
        label: np.abs(np.asarray(explorer.face_along(base, directions, np.eye(count)[place]), float) - still).mean()
        for place, label in enumerate(directions.labels)
    }
    assert change["Light 1"] > max(change["Mouth 1"], change["Mouth 2"])

    def form(label):
        """How much mouths change about their own middle, from a step back to a step ahead, over three faces."""
        faces, step = explorer.latents(1, 3, SPREAD), directions.vectors[directions.labels.index(label)]
        lips = np.stack([explorer.interpolate(faces + sign * step, faces, 1).landmarks[:, 48:] for sign in (-1, 1)])
        return np.linalg.norm(np.diff(lips - lips.mean(axis=-2, keepdims=True), axis=0), axis=(-2, -1)).mean()

    assert form("Mouth 1") > 3 * max(form("Light 1"), form("Light 2"))
    with pytest.raises(DataError, match=f"{count} directions, but 1 amounts"):
        explorer.face_along(base, directions, [1.0])


def test_a_scheme_without_a_mouth_has_no_directions_of_it(shelf):
    with_mouth, without = direction_labels(shelf.finder().scheme), direction_labels(None)
    assert with_mouth == ("Pose 1", "Pose 2", "Pose 3", "Mouth 1", "Mouth 2", "Light 1", "Light 2")
    assert without == ("Pose 1", "Pose 2", "Pose 3", "Light 1", "Light 2")


def test_points_that_differ_are_told():
    """5 % of a box of 100 px are 5 px."""
    first = {"keypoints": [[10.0, 10.0], [50.0, 50.0]], "bbox": [0, 0, 100, 80]}
    other = {"keypoints": [[13.0, 14.1], [53.0, 53.0]], "bbox": [0, 0, 10, 10]}
    assert differing_points(other, first).tolist() == [True, False]
    assert differing_points({"keypoints": [[0.0, 0.0]], "bbox": [0, 0, 1, 1]}, first).tolist() == [False]


def test_latent_walks_need_crops_of_one_size(tmp_path):
    shelf = ModelShelf(autoencoder=str(save_autoencoder(tmp_path / "tiny")))
    with pytest.raises(DataError, match="other crops"):
        LatentExplorer(shelf.finder(), shelf)


def test_comparisons_measure_what_is_labeled(shelf, found, tmp_path):
    tiny = shelf.finder(save_landmarks(tmp_path / "tiny"))
    truth = found.faces[0].keypoints.copy()
    eyes = np.linalg.norm(truth[36] - truth[45])
    truth[:, 0] -= 0.05 * eyes  # 5 % of the distance of the outer eye corners, which divides the error
    photos = [photograph(), photograph("grace_hopper.jpg")]
    result = compare(photos, {"own": shelf.finder(), "tiny": tiny}, {"astronaut": truth})
    assert result.errors[0, 0] == pytest.approx(5.0, abs=0.01)
    assert np.isnan(result.errors[0, 1]) and np.isnan(result.errors[1]).all()  # five points; no label
    assert result.table() == [["astronaut.jpg", "5.00 %", ""], ["grace_hopper.jpg", "", ""], ["mean", "5.00 %", ""]]
    assert [caption for _, caption in result.pictures][:2] == ["astronaut.jpg · own: 5.00 %", "astronaut.jpg · tiny"]
    assert compare(photos[:1], {"own": shelf.finder()}).table() == []
    half = compare([photograph(side=256)], {"own": shelf.finder()}, {"astronaut": truth})
    assert half.errors[0, 0] == pytest.approx(5.0, abs=1.5)  # labels are in pixels of the file


def test_labels_are_read_from_either_origin(tmp_path):
    (tmp_path / "face.pts").write_text("version: 1\nn_points: 2\n{\n1 2\n3 4\n}\n")
    np.testing.assert_array_equal(read_labels([tmp_path / "face.pts"], True)["face"], [[0, 1], [2, 3]])
    (tmp_path / "broken.pts").write_text("{\n1\n}\n")
    with pytest.raises(DataError, match="broken.pts") as caught:
        read_labels([tmp_path / "broken.pts"], False)
    assert str(tmp_path) not in str(caught.value)  # where the server keeps uploads is nobody's business


@pytest.fixture
def uploads(tmp_path):
    (tmp_path / "web").mkdir()
    return Uploads(tmp_path / "web", Limits(file_bytes=60_000_000))


def test_checkpoints_come_as_files_or_in_an_archive(uploads):
    names = ("config.json", "model.safetensors", "preprocessor_config.json")
    source = weights_path("3fabrec-300w")
    paths = [str(shutil.copy(source / name, uploads.folder / name)) for name in names]
    paths.append(str(uploads.folder / "evil.py"))
    (uploads.folder / "evil.py").write_text("raise SystemExit")
    _, files = read_checkpoint(paths, uploads)
    assert sorted(files) == sorted(names)
    with zipfile.ZipFile(uploads.folder / "mine.zip", "w") as archive:
        for name in names:
            archive.write(source / name, f"run/{name}")
        archive.writestr("../../evil.py", "raise SystemExit")
    assert read_checkpoint([str(uploads.folder / "mine.zip")], uploads) == ("mine", files)
    with pytest.raises(CheckpointError, match="lacks preprocessor_config.json"):
        read_checkpoint(paths[:2], uploads)
    with pytest.raises(ImageError, match="Only files that were uploaded"):
        read_checkpoint([str(source / "config.json")], uploads)


def test_an_uploaded_delta_is_refused_because_it_names_what_to_load(uploads):
    source = weights_path("3fabrec-300w-10shot")
    names = ("config.json", "delta.safetensors", "preprocessor_config.json")
    paths = [str(shutil.copy(source / name, uploads.folder / name)) for name in names]
    with pytest.raises(CheckpointError, match="lacks model.safetensors.*deltas are not taken"):
        read_checkpoint(paths, uploads)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 4096}, "image_size"),
        ({"widths": [64, 99999]}, "widths"),
        ({"num_landmarks": 10**9}, "num_landmarks"),
        ({"widths": "many"}, "not that of a landmark model"),
        (None, "not that of a landmark model"),
    ],
)
def test_configurations_that_ask_for_too_much_are_refused(uploads, change, message):
    values = json.loads((weights_path("3fabrec-300w") / "config.json").read_text())
    with zipfile.ZipFile(uploads.folder / "mine.zip", "w") as archive:
        archive.writestr("config.json", "[]" if change is None else json.dumps(values | change))
        archive.writestr("model.safetensors", b"")
        archive.writestr("preprocessor_config.json", b"{}")
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint([str(uploads.folder / "mine.zip")], uploads)


def not_an_archive(content: bytes) -> bytes:
    return b"PK no" + content[5:30]


def encrypted(content: bytes) -> bytes:
    """Set the first of the general purpose flags, in the entry's own header (byte 6) and in the directory (byte 8)."""
    flagged, directory = bytearray(content), content.index(b"PK\x01\x02")
    flagged[6] |= 1
    flagged[directory + 8] |= 1
    return bytes(flagged)


def packed_by_an_unknown_method(content: bytes) -> bytes:
    """Claim method 97 (WavPack), in the entry's own header (byte 8) and in the directory (byte 10)."""
    changed, directory = bytearray(content), content.index(b"PK\x01\x02")
    changed[8] = changed[directory + 10] = 97
    return bytes(changed)


def damaged(content: bytes) -> bytes:
    """Overwrite the deflated data, which begin after the entry's header of 30 bytes and its name."""
    start = 30 + len("config.json")
    return content[:start] + b"\xff" * 8 + content[start + 8 :]


def cut_inside_the_data(content: bytes) -> bytes:
    """Claim stored data far longer than the file (method at bytes 8 and 10, sizes in the directory at 20 and 24)."""
    changed, directory = bytearray(content), content.index(b"PK\x01\x02")
    changed[8] = changed[directory + 10] = zipfile.ZIP_STORED
    changed[directory + 20 : directory + 28] = 2 * (10**6).to_bytes(4, "little")
    return bytes(changed)


@pytest.mark.parametrize(
    "spoil", [not_an_archive, encrypted, packed_by_an_unknown_method, damaged, cut_inside_the_data]
)
def test_an_archive_that_cannot_be_read_is_refused(uploads, spoil):
    path = uploads.folder / "mine.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", json.dumps(list(range(500))))
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(CheckpointError, match="zip archive cannot be read"):
        read_checkpoint([str(path)], uploads)


def test_the_shelf_keeps_the_models_used_last(tmp_path):
    shelf = ModelShelf(capacity=2)
    folders = [save_landmarks(tmp_path / name, seed) for seed, name in enumerate("abc")]
    first = shelf.finder(folders[0])
    assert shelf.finder(folders[0]) is first
    shelf.finder(folders[1])
    shelf.finder(folders[2])
    assert shelf.finder(folders[0]) is not first
    third = shelf.finder(folders[2])
    save_landmarks(folders[2], 9)  # taught again
    assert shelf.finder(folders[2]) is not third
