"""Landmark errors under perturbations, and the command that writes them down."""

import json
import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image


datasets = pytest.importorskip("datasets")
pytest.importorskip("matplotlib")

from fabrec_hf.cli import main  # noqa: E402
from fabrec_hf.data import held_out_faces, load_faces  # noqa: E402
from fabrec_hf.errors import DataError, SchemeError  # noqa: E402
from fabrec_hf.evaluation.perturbations import PERTURBATIONS, FaceInPicture, perturb  # noqa: E402
from fabrec_hf.evaluation.robustness import RobustnessSettings, measure_robustness  # noqa: E402
from fabrec_hf.model.configuration_fabrec import FabRecAutoencoderConfig, FabRecConfig  # noqa: E402
from fabrec_hf.model.image_processing_fabrec import FabRecImageProcessor  # noqa: E402
from fabrec_hf.model.known_schemes import get_scheme  # noqa: E402
from fabrec_hf.model.modeling_fabrec import FabRecAutoencoder, FabRecForLandmarkDetection  # noqa: E402
from support.scored_faces import make_dataset  # noqa: E402
from support.tiny_checkpoints import TINY  # noqa: E402


SCHEME = get_scheme("mtfl")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = FabRecConfig(**TINY, num_landmarks=5, heatmap_size=16, landmark_scheme=SCHEME.to_dict())
    return FabRecForLandmarkDetection(config).eval()


@pytest.fixture(scope="module")
def processor():
    return FabRecImageProcessor(size=32)


@pytest.fixture(scope="module")
def faces():
    random = np.random.default_rng(0)
    small = random.integers(0, 256, (7, 6, 8, 3), dtype=np.uint8)
    images = [Image.fromarray(pixels).resize((80, 60), Image.Resampling.BICUBIC) for pixels in small]
    landmarks = random.uniform(10, 50, (7, 5, 2))
    landmarks[2, 3] = np.nan
    boxes = np.concatenate([random.uniform(0, 20, (7, 2)), random.uniform(20, 40, (7, 2))], axis=1)
    return make_dataset(images, landmarks, boxes)


def errors_by_loops(model, processor, dataset, perturbation, strength, seed):
    """Perturb and score face by face, in the whole picture and by way of the public post-processing."""
    errors = []
    for index, row in enumerate(dataset):
        face = FaceInPicture(np.asarray(row["image"]), np.array(row["landmarks"]), np.array(row["box"]))
        face = perturb(face, perturbation, strength, index, seed)
        inputs = processor(Image.fromarray(face.pixels), boxes=[face.box.tolist()])
        with torch.no_grad():
            outputs = model(inputs["pixel_values"])
        found = processor.post_process_keypoint_detection(outputs, inputs["crop_boxes"], num_images=1)[0][0]
        distances = [
            math.dist(point, true)
            for point, true in zip(found["keypoints"].tolist(), face.points.tolist(), strict=True)
            if not math.isnan(true[0])
        ]
        length = math.dist(row["landmarks"][0], row["landmarks"][1])
        errors.append(100 * sum(distances) / len(distances) / length)
    return errors


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_curves_are_those_of_single_faces_for_any_batch_size(model, processor, faces, batch_size):
    chosen = [PERTURBATIONS[name] for name in ("box_jitter", "blur", "rotation")]
    settings = RobustnessSettings(chosen, seed=4, batch_size=batch_size, threshold=60)
    measured = measure_robustness(model, processor, faces, settings)
    assert list(measured["perturbations"]) == ["box_jitter", "blur", "rotation"]
    assert measured["count"] == 7 and measured["threshold"] == 60
    sides = np.array(faces["box"])[:, 2:].max(axis=1)
    assert measured["median_box_side"] == pytest.approx(sorted(sides)[3])
    for entry in chosen:
        curve = measured["perturbations"][entry.name]["curve"]
        assert [point["strength"] for point in curve] == list(entry.strengths)
        for point in curve:
            errors = errors_by_loops(model, processor, faces, entry, point["strength"], seed=4)
            assert point["nme"] == pytest.approx(np.mean(errors), rel=1e-3)
            assert point["failure_rate"] == pytest.approx(100 * np.mean(np.array(errors) > 60))
            assert point["count"] == 7


def test_a_row_is_perturbed_as_that_row_whatever_else_is_measured(model, processor, faces):
    entry = PERTURBATIONS["box_jitter"]
    for row in (5, 2):
        measured = measure_robustness(model, processor, faces, RobustnessSettings([entry], [row]))
        for point in measured["perturbations"]["box_jitter"]["curve"]:
            expected = errors_by_loops(model, processor, faces, entry, point["strength"], seed=0)[row]
            assert point["nme"] == pytest.approx(expected, rel=1e-3)


def test_scores_are_compared_at_the_points_that_a_patch_covers(model, processor, faces):
    entry = PERTURBATIONS["occlusion"]
    measured = measure_robustness(model, processor, faces, RobustnessSettings([entry], batch_size=2))
    found = measured["perturbations"]["occlusion"]

    def scores(pixels, box):
        inputs = processor(Image.fromarray(pixels), boxes=[box.tolist()])
        with torch.no_grad():
            return model(inputs["pixel_values"]).scores[0].numpy()

    plain, covered = {}, {}
    for index, row in enumerate(faces):
        face = FaceInPicture(np.asarray(row["image"]), np.array(row["landmarks"]), np.array(row["box"]))
        for strength in entry.strengths[1:]:
            other = perturb(face, entry, strength, index)
            plain.setdefault(strength, []).extend(scores(face.pixels, face.box)[other.covered])
            covered.setdefault(strength, []).extend(scores(other.pixels, other.box)[other.covered])

    def pairs_won(higher, lower):
        return np.mean([[1.0 if high > low else 0.5 if high == low else 0.0 for low in lower] for high in higher])

    known = [strength for strength in plain if plain[strength]]
    curve = {point["strength"]: point for point in found["curve"]}
    assert known and "roc_auc" not in curve[0] and "roc_auc" not in measure_blur(model, processor, faces)
    for strength in known:
        assert curve[strength]["covered_points"] == len(plain[strength])
        assert curve[strength]["roc_auc"] == pytest.approx(pairs_won(plain[strength], covered[strength]), abs=0.02)
    together = [sum((kind[strength] for strength in known), []) for kind in (plain, covered)]
    assert found["roc_auc"] == pytest.approx(pairs_won(*together), abs=0.02)


def measure_blur(model, processor, faces):
    settings = RobustnessSettings([PERTURBATIONS["blur"]], [0])
    return measure_robustness(model, processor, faces, settings)["perturbations"]["blur"]


class MarkerFinder:
    """A perfect model for pictures with one smooth marker a color: it finds their centroids in the crop."""

    def __init__(self, size, normalizer):
        scheme = {"name": "markers", "num_landmarks": 3, "normalizer": normalizer}
        self.config = SimpleNamespace(landmark_scheme=scheme, decoding="centroid", flip_average=False)
        self.device, self.dtype = torch.device("cpu"), torch.float32
        self.positions = (torch.arange(size) + 0.5) / size

    def __call__(self, pixel_values):
        light = pixel_values + torch.tensor(FabRecImageProcessor.image_mean).view(1, 3, 1, 1)
        total = light.sum(dim=(2, 3))
        x = (light.sum(dim=2) * self.positions).sum(dim=2) / total
        y = (light.sum(dim=3) * self.positions).sum(dim=2) / total
        return SimpleNamespace(landmarks=torch.stack([x, y], dim=-1), scores=torch.ones_like(x))


@pytest.mark.parametrize("normalizer", [{"kind": "points", "points": [0, 1]}, {"kind": "box"}])
def test_who_finds_the_markers_has_no_error_however_boxes_move_and_pictures_turn(normalizer):
    """Truth, box and crop go with the pixels: an error of one pixel anywhere would be 2 % here, the limit is 0.4."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:160, :170]
    images, landmarks, boxes = [], [], []
    for _ in range(6):
        points = np.array([85.0, 80.0]) + random.uniform(-6, 6, 2) + [[-20, -17], [21, -16], [2, 23]]
        points += random.uniform(-2, 2, (3, 2))
        blobs = [255 * np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * 2.0**2)) for px, py in points]
        images.append(Image.fromarray(np.stack(blobs, axis=-1).round().astype(np.uint8)))
        landmarks.append(points)
        # Wide enough that the markers stay in the crop.
        boxes.append([*(points.min(axis=0) - 12), *(np.ptp(points, axis=0) + 24)])
    dataset = make_dataset(images, landmarks, boxes)
    chosen = [PERTURBATIONS[name] for name in ("box_jitter", "rotation", "darkness")]
    finder, settings = MarkerFinder(64, normalizer), RobustnessSettings(chosen)
    measured = measure_robustness(finder, FabRecImageProcessor(size=64), dataset, settings)
    assert measured["normalizer"] == normalizer
    for name, strengths in (("box_jitter", (0, 2.5, 5)), ("rotation", (0, 10, 20, 30, 45)), ("darkness", (0, 2))):
        curve = measured["perturbations"][name]["curve"]
        for point in curve:
            if point["strength"] in strengths:
                assert point["nme"] < 0.4, (name, point)


def test_errors_are_in_lengths_of_the_undisturbed_face():
    """Whoever always points at the middle of the crop: distances by hand from jittered boxes, over the given boxes."""

    class Middle(MarkerFinder):
        def __call__(self, pixel_values):
            middle = torch.full((len(pixel_values), 3, 2), 0.5)
            return SimpleNamespace(landmarks=middle, scores=middle[..., 0])

    random = np.random.default_rng(1)
    landmarks, boxes = random.uniform(20, 60, (4, 3, 2)), [[10.0, 15.0, 50.0, 40.0]] * 4
    dataset = make_dataset([Image.new("RGB", (80, 80))] * 4, landmarks, boxes)
    entry = PERTURBATIONS["box_jitter"]
    finder = Middle(32, {"kind": "box"})
    measured = measure_robustness(finder, FabRecImageProcessor(size=32), dataset, RobustnessSettings([entry]))
    curve = measured["perturbations"]["box_jitter"]
    for point in curve["curve"]:
        errors = []
        for row in range(4):
            face = FaceInPicture(np.zeros((80, 80, 3), np.uint8), landmarks[row], np.array(boxes[row]))
            x, y, width, height = perturb(face, entry, point["strength"], row).box
            # The crop adds 20 % of the height above and 12 % below: its middle lies 4 % above that of the box.
            middle = np.array([x + width / 2 - 0.5, y + height / 2 - 0.04 * height - 0.5])
            errors.append(100 * np.linalg.norm(landmarks[row] - middle, axis=1).mean() / 50)
        assert curve["curve"][0]["strength"] == 0 and point["nme"] == pytest.approx(np.mean(errors), rel=1e-4)


def test_data_that_cannot_be_measured(model, processor, faces):
    with pytest.raises(DataError, match="no column box"):
        measure_robustness(model, processor, faces.remove_columns("box"))
    with pytest.raises(SchemeError, match="finds the 5 points of mtfl, but the data has 68"):
        measure_robustness(model, processor, make_dataset(faces["image"], np.ones((7, 68, 2)), faces["box"]))
    with pytest.raises(DataError, match="Face 0 has a normalizing length of zero"):
        measure_robustness(model, processor, make_dataset(faces["image"], np.ones((7, 5, 2)), faces["box"]))
    bare = FabRecForLandmarkDetection(FabRecConfig(**TINY, num_landmarks=5, heatmap_size=16))
    with pytest.raises(SchemeError, match="carries no landmark scheme"):
        measure_robustness(bare, processor, faces)
    broken = faces.cast_column("image", datasets.Image(decode=False)).to_dict()
    broken["image"][5]["bytes"] = broken["image"][5]["bytes"][:100]
    broken = datasets.Dataset.from_dict(broken, features=faces.features)
    with pytest.raises(DataError, match="picture in row 5 cannot be read"):
        measure_robustness(model, processor, broken)
    unannotated = make_dataset(faces["image"], np.full((7, 5, 2), np.nan), faces["box"])
    with pytest.raises(DataError, match="no face to score"):
        measure_robustness(model, processor, unannotated)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, model, processor, faces):
    """A landmark model, an autoencoder, annotated faces, and 120 face crops of two sources."""
    folder = tmp_path_factory.mktemp("read-out")
    model.save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    torch.manual_seed(1)
    FabRecAutoencoder(FabRecAutoencoderConfig(**TINY)).save_pretrained(folder / "autoencoder")
    faces.to_parquet(folder / "test-0.parquet")
    faces.select(range(2)).to_parquet(folder / "train-0.parquet")
    random = np.random.default_rng(2)
    columns = {
        "image": [Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)) for _ in range(120)],
        "source": ["here"] * 60 + ["there"] * 60,
        "age": [str(age) for age in range(60)] + [None] * 60,
        "gender": ["Female", "Male"] * 30 + [None] * 60,
    }
    features = datasets.Features(
        {"image": datasets.Image()} | {name: datasets.Value("string") for name in ("source", "age", "gender")}
    )
    datasets.Dataset.from_dict(columns, features=features).to_parquet(folder / "crops.parquet")
    return folder


def words_for(folder, output, *more):
    words = ["robustness", "--model", folder / "model", "--autoencoder", folder / "autoencoder", "--output", output]
    return [str(word) for word in (*words, *more)]


def test_command_writes_what_the_functions_return(folder, tmp_path, model, processor, faces, capsys):
    output = tmp_path / "new" / "results"
    labeled = ["--data", folder / "t*-0.parquet", "--faces", folder / "crops.parquet", "--all-faces", "--seed", 3]
    assert main([*words_for(folder, output, *labeled, "--batch-size", 4), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert sorted(path.name for path in output.iterdir()) == ["report.md", "results.json", "robustness.png"]
    assert json.loads((output / "results.json").read_text()) == printed
    settings = RobustnessSettings(seed=3)
    expected = measure_robustness(model, processor, faces, settings)  # of several splits the test set is the default
    for name, entry in expected["perturbations"].items():
        found = printed["robustness"]["perturbations"][name]
        assert [point["nme"] for point in found["curve"]] == pytest.approx(
            [point["nme"] for point in entry["curve"]], rel=1e-3
        )
    counts = {(entry["source"], entry["group"]): entry["count"] for entry in printed["reconstruction"]["groups"]}
    assert counts[None, None] == 120 and counts["here", "Male"] == 30 and counts["here", "20-29"] == 10
    with Image.open(output / "robustness.png") as picture:
        assert picture.width == 1600 and picture.height > 1200
        assert np.asarray(picture.convert("L")).std() > 10
    report = (output / "report.md").read_text()
    standard = printed["robustness"]["perturbations"]["box_jitter"]["curve"][2]
    assert standard["strength"] == 5 and f"|  | 5 | {standard['nme']:.2f} | " in report
    assert "| here | age | 20-29 | 10 | too few faces | too few faces |" in report
    assert main(words_for(folder, output, *labeled)) == 0  # again, over the files that are there
    assert report in capsys.readouterr().out
    assert sorted(path.name for path in output.iterdir()) == ["report.md", "results.json", "robustness.png"]


def test_command_measures_one_kind_alone(folder, tmp_path, capsys):
    words = words_for(folder, tmp_path, "--data", folder, "--split", "test", "--limit", 3)
    assert main([*words, "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert "reconstruction" not in results and results["robustness"]["count"] == 3
    assert Image.open(tmp_path / "robustness.png").width == 1600
    assert main([*words_for(folder, tmp_path, "--faces", folder / "crops.parquet"), "--json"]) == 0
    results = json.loads(capsys.readouterr().out)
    crops = load_faces(folder / "crops.parquet")
    assert "robustness" not in results
    assert 0 < results["reconstruction"]["count"] == len(held_out_faces(crops)[1]) < 120
    assert Image.open(tmp_path / "robustness.png").width == 1600
    words = words_for(folder, tmp_path, "--faces", folder / "crops.parquet", "--all-faces", "--limit", 30, "--json")
    assert main(words) == 0
    groups = json.loads(capsys.readouterr().out)["reconstruction"]["groups"]
    counts = {entry["source"]: entry["count"] for entry in groups if entry["attribute"] is None}
    assert counts == {None: 30, "here": 15, "there": 15}  # spread evenly


def test_a_landmark_models_own_autoencoder_can_be_named(folder, tmp_path, capsys):
    faces = ["--faces", folder / "crops.parquet", "--all-faces"]
    levels = []
    for name in ("autoencoder", "model"):
        words = words_for(folder, tmp_path, *faces, "--autoencoder", folder / name, "--json")
        assert main(words) == 0
        levels.append(json.loads(capsys.readouterr().out)["reconstruction"]["groups"][0]["l1"]["mean"])
    assert levels[0] != pytest.approx(levels[1], rel=1e-4)


def test_command_answers_mistakes_in_one_line_and_writes_nothing(folder, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    labeled = folder / "test-0.parquet"
    few = tmp_path / "few.parquet"
    crops = load_faces(folder / "crops.parquet")
    held_out_faces(crops)[0].select(range(5)).to_parquet(few)
    output = tmp_path / "output"
    cases = [
        ([output], "nothing to measure"),
        ([output, "--data", tmp_path / "nowhere"], "no file or folder"),
        ([output, "--faces", tmp_path / "nowhere"], "no file or folder"),
        ([output, "--data", folder / "crops.parquet"], "no column landmarks"),
        ([output, "--data", labeled, "--model", folder / "autoencoder"], "finds no landmarks"),
        ([output, "--data", labeled, "--faces", few], "held out"),
        ([output, "--faces", few, "--all-faces", "--autoencoder", "nowhere"], "No checkpoint 'nowhere'"),
        ([output, "--data", labeled, "--batch-size", "0"], "must be positive"),
        ([output, "--data", labeled, "--limit", "0"], "must be positive"),
        ([output, "--data", labeled, "--seed", "-1"], "--seed"),
        ([output, "--data", labeled, "--device", "abacus"], "--device abacus"),
        ([tmp_path / "file", "--data", labeled], "is not a folder"),
        ([tmp_path / "file" / "below", "--data", labeled], "is not a folder"),
    ]
    for (target, *more), message in cases:
        capsys.readouterr()
        assert main(words_for(folder, target, *more)) == 2
        streams = capsys.readouterr()
        assert streams.out == ""
        assert message in streams.err.strip().splitlines()[-1]
        assert streams.err.count("error:") == 1 and "Traceback" not in streams.err
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(words_for(folder, output, "--data", labeled)) == 2
    assert "pip install 'fabrec-hf[train]'" in capsys.readouterr().err
    assert not output.exists()


def test_help_has_an_example(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["robustness", "--help"])
    assert stop.value.code == 0
    assert "example: fabrec robustness --" in " ".join(capsys.readouterr().out.split())
