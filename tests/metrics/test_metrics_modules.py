"""The `evaluate` modules: loaded by path and as classes, from lists, arrays and tensors, whole and in batches."""

import importlib
import math
import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch

from fabrec_hf import metrics
from fabrec_hf.errors import DataError, FabRecError
from fabrec_hf.metrics import module_path, named_normalizer
from fabrec_hf.model.known_schemes import get_scheme


evaluate = pytest.importorskip("evaluate")

NAN = float("nan")
CLASSES = {
    "nme": "Nme",
    "failure_rate": "FailureRate",
    "auc": "Auc",
    "ced": "Ced",
    "face_landmarks": "FaceLandmarks",
    "jitter": "Jitter",
}
FACE_MODULES = [name for name in CLASSES if name != "jitter"]
FACE = [[0.0, 0.0], [10.0, 0.0], [5.0, 5.0], [2.0, 8.0], [8.0, 8.0]]  # eyes 10 px apart


def random_faces(count=12, seed=0):
    rng = np.random.default_rng(seed)
    targets = rng.uniform(0, 200, (count, 68, 2))
    targets[:, :36][rng.random((count, 36)) < 0.1] = NAN
    targets[5] = NAN
    predictions = targets + rng.normal(0, 8, targets.shape)
    predictions[2] = NAN
    return predictions, targets


def load(name, **kwargs):
    return evaluate.load(str(module_path(name)), **kwargs)


def direct(name):
    return getattr(importlib.import_module(f"fabrec_hf.metrics.{name}.{name}"), CLASSES[name])()


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a metric opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.parametrize("name", CLASSES)
def test_path_and_class_give_the_same_without_a_network(name, no_network):
    predictions, targets = random_faces()
    loaded, own = load(name), direct(name)
    assert type(loaded).__name__ == type(own).__name__ == CLASSES[name]
    assert loaded.name == own.name == name
    results = loaded.compute(predictions=predictions, references=targets)
    np.testing.assert_equal(own.compute(predictions=predictions, references=targets), results)
    assert len(results) >= 6


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize(
    "kind",
    [
        lambda points: points.tolist(),
        torch.tensor,
        lambda points: torch.tensor(points, requires_grad=True),
        lambda points: [torch.tensor(face) for face in points],
        lambda points: [face.tolist() for face in points],
    ],
    ids=["lists", "tensor", "tensor with gradient", "list of tensors", "list of lists"],
)
def test_lists_arrays_and_tensors_give_the_same(name, kind):
    predictions, targets = random_faces()
    module = direct(name)
    expected = module.compute(predictions=predictions, references=targets)
    np.testing.assert_equal(module.compute(predictions=kind(predictions), references=kind(targets)), expected)
    np.testing.assert_equal(module.compute(predictions=kind(predictions), references=targets), expected)


def test_half_precision_tensors_and_missing_values_as_none():
    face = torch.tensor([FACE, FACE])
    references = [[[None, None] if i == 2 else point for i, point in enumerate(FACE)], FACE]
    results = direct("nme").compute(predictions=(face + 1).bfloat16(), references=references, scheme="mtfl")
    assert results["nme"] == pytest.approx(10 * math.sqrt(2))
    assert results["points_not_annotated"] == 1


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.parametrize("in_memory", [False, True])
def test_batches_give_the_same_as_the_whole(name, in_memory):
    predictions, targets = random_faces()
    boxes = np.random.default_rng(1).uniform(50, 100, (12, 4))
    arguments = {"normalizer": "box_diagonal"}
    module = load(name, keep_in_memory=in_memory)
    whole = module.compute(predictions=predictions, references=targets, boxes=boxes, **arguments)
    for rows in (slice(0, 1), slice(1, 1), slice(1, 7), slice(7, 12)):
        module.add_batch(predictions=predictions[rows], references=targets[rows], boxes=boxes[rows])
    np.testing.assert_equal(module.compute(**arguments), whole)
    for prediction, target, box in zip(predictions, targets, boxes, strict=True):
        module.add(prediction=prediction, reference=target, boxes=box)
    np.testing.assert_equal(module.compute(**arguments), whole)
    module.add_batch(predictions=predictions, references=targets)
    np.testing.assert_equal(module.compute(boxes=boxes, **arguments), whole)
    module.add_batch(predictions=predictions[:5], references=targets[:5], boxes=boxes[:5])
    last = module.compute(predictions=predictions[5:], references=targets[5:], boxes=boxes[5:], **arguments)
    np.testing.assert_equal(last, whole)


@pytest.mark.parametrize(
    "normalizer", ["inter_pupil", "box", ["chin", "nose_tip"], {"kind": "points", "points": [0, 16]}]
)
def test_face_modules_are_the_plain_functions(normalizer):
    predictions, targets = random_faces()
    targets[:, [0, 16, 8, 30]] = np.random.default_rng(3).uniform(0, 100, (12, 4, 2))
    boxes = np.random.default_rng(1).uniform(50, 100, (12, 4))
    length = named_normalizer(normalizer, "300w")
    errors = metrics.normalized_mean_error(predictions, targets, length, boxes)
    points = metrics.count_missing(predictions, targets)
    summary = metrics.summarize_errors(errors, 12)
    counts = {name: summary[name] for name in ("count", "without_prediction", "not_scored")} | points
    inputs = {"predictions": predictions, "references": targets, "boxes": boxes, "normalizer": normalizer}

    assert direct("face_landmarks").compute(**inputs, threshold=12) == summary | points
    assert direct("nme").compute(**inputs) == {"nme": summary["nme"]} | counts
    assert direct("failure_rate").compute(**inputs, threshold=12) == {"failure_rate": summary["failure_rate"]} | counts
    assert direct("auc").compute(**inputs, threshold=12) == {"auc": summary["auc"]} | counts
    for num in (None, 7):
        thresholds, fractions = metrics.cumulative_error_distribution(errors, 12, num)
        curve = {"thresholds": thresholds.tolist(), "fractions": fractions.tolist()}
        assert direct("ced").compute(**inputs, threshold=12, num=num) == curve | counts


def test_values_of_each_face_and_part():
    predictions, targets = random_faces()
    scheme = get_scheme("300w")
    points = metrics.point_errors(predictions, targets, scheme.normalizer)
    errors = metrics.normalized_mean_error(predictions, targets, scheme.normalizer)
    for name in ("nme", "face_landmarks"):
        results = direct(name).compute(predictions=predictions, references=targets, per_image=True, per_part=True)
        np.testing.assert_equal(results["per_image"], errors.tolist())
        np.testing.assert_equal(results["per_part"], metrics.part_errors(points, scheme.parts))
        assert math.isinf(results["per_image"][2]) and math.isnan(results["per_image"][5])
    failed = direct("failure_rate").compute(predictions=predictions, references=targets, per_image=True, threshold=8)
    assert failed["per_image"] == [None if math.isnan(error) else bool(error > 8) for error in errors]
    assert {True, None} <= set(failed["per_image"])
    with pytest.raises(ValueError, match="mine names no parts"):
        direct("nme").compute(
            predictions=[FACE],
            references=[FACE],
            scheme={"name": "mine", "num_landmarks": 5},
            boxes=[[0, 0, 9, 9]],
            per_part=True,
        )


@pytest.mark.parametrize("name", FACE_MODULES)
def test_other_and_custom_schemes(name):
    moved = np.add(FACE, [3, 4]).tolist()
    inputs = {"predictions": [moved], "references": [FACE]}
    arguments = {} if name == "nme" else {"threshold": 40}
    module = direct(name)
    boxed = module.compute(**inputs, boxes=[[0, 0, 50, 20]], scheme="mtfl", normalizer="box", **arguments)
    scheme = {"name": "mine", "num_landmarks": 5, "normalizer": {"kind": "points", "points": [0, 2]}}
    own = module.compute(**inputs, scheme=scheme, **arguments)
    expected = {  # 5 px of a box of 50, and 5 px of sqrt(50) px between the points, 71 %
        "nme": ({"nme": 10.0}, {"nme": 100 * 5 / math.sqrt(50)}),
        "failure_rate": ({"failure_rate": 0.0}, {"failure_rate": 100.0}),
        "auc": ({"auc": 0.75}, {"auc": 0.0}),
        "ced": ({"thresholds": [0, 10, 40], "fractions": [0, 1, 1]}, {"thresholds": [0, 40], "fractions": [0, 0]}),
        "face_landmarks": ({"nme": 10.0, "auc": 0.75}, {"failure_rate": 100.0, "auc": 0.0}),
    }
    for results, values in zip((boxed, own), expected[name], strict=True):
        for key, value in values.items():
            assert results[key] == pytest.approx(value)


def test_jitter_of_several_videos_is_the_mean_of_theirs():
    rng = np.random.default_rng(0)
    videos = {
        "a": rng.uniform(0, 50, (6, 68, 2)),
        "b": rng.uniform(0, 50, (4, 68, 2)),
        7: rng.uniform(0, 50, (1, 68, 2)),
    }
    targets = {name: points + rng.normal(0, 1, points.shape) for name, points in videos.items()}
    normalizer = get_scheme("300w").normalizer
    expected = {
        str(name): metrics.summarize_jitter(
            points, metrics.normalizing_distance(targets[name], normalizer), targets[name]
        )
        for name, points in videos.items()
    }
    # frames of the videos come in turns, each in its order
    order = ["a", "b", "a", 7, "a", "b", "b", "a", "a", "b", "a"]
    place = {name: iter(range(len(points))) for name, points in videos.items()}
    rows = [(name, next(place[name])) for name in order]
    inputs = {
        "predictions": [videos[name][i] for name, i in rows],
        "references": [targets[name][i] for name, i in rows],
        "sequences": order,
    }
    results = load("jitter").compute(**inputs, per_sequence=True)
    np.testing.assert_equal(results.pop("per_sequence"), expected)
    assert results == {
        "acceleration": pytest.approx((expected["a"]["acceleration"] + expected["b"]["acceleration"]) / 2),
        "nmf": pytest.approx((expected["a"]["nmf"] + expected["b"]["nmf"]) / 2),
        "sequences": 3,
        "frames": 11,
        "frames_without_prediction": 0,
        "triples_left_out": 0,
        "pairs_left_out": 0,
    }
    module = load("jitter")
    for start in (0, 4, 8):
        module.add_batch(**{name: values[start : start + 4] for name, values in inputs.items()})
    assert module.compute() == results


def test_jitter_without_references_measures_lengths_on_the_predictions_or_boxes():
    frames = np.stack([np.array(FACE) * scale for scale in (1, 2, 1)])  # eyes 10, 20, 10 px apart
    module = direct("jitter")
    turns = sum(math.hypot(*point) * 2 for point in FACE) / 5
    results = module.compute(predictions=frames, scheme="mtfl")
    assert results["acceleration"] == pytest.approx(100 * turns / 20)
    assert "nmf" not in results and "pairs_left_out" not in results
    boxes = [[0, 0, 30, 40]] * 3
    results = module.compute(predictions=frames, boxes=boxes, scheme="mtfl", normalizer="box_diagonal")
    assert results["acceleration"] == pytest.approx(100 * turns / 50)
    measured = module.compute(predictions=frames, references=[FACE] * 3, scheme="mtfl")
    assert measured["acceleration"] == pytest.approx(100 * turns / 10)
    with pytest.raises(DataError, match="no video has enough consecutive frames"):
        module.compute(predictions=frames[:2], scheme="mtfl")
    with pytest.raises(ValueError, match="300w has 68 points, but the predictions have shape"):
        module.compute(predictions=frames)


@pytest.mark.parametrize("name", CLASSES)
def test_inputs_that_cannot_be_scored_are_one_line(name):
    module = direct(name)
    faces = {"predictions": [FACE] * 3, "references": [FACE] * 3}
    wrong = [
        ({}, "give predictions, or add some first"),
        ({"predictions": [], "references": []}, "predictions is empty"),
        ({"predictions": None, "references": [FACE]}, "predictions must be given"),
        ({"predictions": FACE, "references": FACE}, r"predictions must have shape \(N, L, 2\), not \(5, 2\)"),
        ({"predictions": [FACE], "references": [FACE, FACE]}, "There are 1 predictions, but 2 references"),
        ({"predictions": [FACE, FACE[:3]], "references": [FACE] * 2}, "must be numbers, and as many of them"),
        (faces | {"boxes": [[0, 0, 5]] * 3}, r"boxes must have shape \(N, 4\), not \(3, 3\)"),
        (faces | {"boxes": [[0, 0, 5, 5]]}, "There are 3 predictions, but 1 boxes"),
        (faces | {"scheme": "wflw"}, "wflw has 98 points"),
        (faces | {"scheme": "mtfl", "normalizer": "inter_ocular"}, "mtfl does not say which points"),
        (faces | {"scheme": "mtfl", "normalizer": "box"}, "needs the face boxes"),
    ]
    for inputs, message in wrong:
        with pytest.raises(FabRecError, match=message) as error:
            module.compute(**inputs)
        assert isinstance(error.value, ValueError) and "\n" not in str(error.value)
        assert not any(lock.is_locked for lock in module.filelocks or [])  # the next call would wait for them
    with pytest.raises(ValueError, match="pictures is no input of this module; its inputs are predictions"):
        module.add_batch(**faces, pictures=[1, 2, 3])
    with pytest.raises(TypeError, match="unexpected keyword argument 'treshold'"):
        module.compute(**faces, scheme="mtfl", treshold=8)
    # what was refused leaves nothing behind
    assert module.compute(**faces, scheme="mtfl")["points" if name != "jitter" else "frames"] in (15, 3)


def test_boxes_for_some_faces_only_are_refused():
    module = direct("nme")
    module.add_batch(predictions=[FACE], references=[FACE], boxes=[[0, 0, 9, 9]])
    module.add_batch(predictions=[FACE], references=[FACE])
    with pytest.raises(DataError, match="boxes were given for 1 of 2 faces; give them for all or for none"):
        module.compute(scheme="mtfl")


@pytest.mark.parametrize("name", CLASSES)
def test_a_module_works_without_the_files_beside_it(name, tmp_path, no_network):
    """As from a Space, which holds the module and its card alone."""
    folder = tmp_path / name
    folder.mkdir()
    shutil.copy(module_path(name) / f"{name}.py", folder)
    predictions, targets = random_faces()
    expected = direct(name).compute(predictions=predictions, references=targets)
    alone = evaluate.load(str(folder))
    np.testing.assert_equal(alone.compute(predictions=predictions, references=targets), expected)


def test_the_function_keeps_its_name_beside_the_folder_of_its_module():
    direct("failure_rate")
    assert metrics.failure_rate([5.0, 20.0]) == 50
    assert importlib.import_module("fabrec_hf.metrics.failure_rate.failure_rate").FailureRate


def test_modules_are_found_by_name():
    assert {module_path(name).name for name in CLASSES} == set(CLASSES)
    with pytest.raises(ValueError, match="'mse'; there are auc, ced, face_landmarks, failure_rate, jitter, nme"):
        module_path("mse")


def test_plain_functions_need_no_evaluate():
    code = (
        "import sys; sys.modules['evaluate'] = None; import fabrec_hf.metrics as m; "
        "print(m.failure_rate([5, 20]), m.module_path('nme').is_dir())"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "50.0 True\n"
