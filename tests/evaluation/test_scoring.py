"""Scoring a checkpoint: the same numbers face by face, for any batch size and number of threads; clear errors."""

import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps


datasets = pytest.importorskip("datasets")

from fabrec_hf.data.annotations import annotations  # noqa: E402
from fabrec_hf.errors import DataError, SchemeError  # noqa: E402
from fabrec_hf.evaluation.reports import describe_measurement  # noqa: E402
from fabrec_hf.evaluation.scored_points import scored_scheme  # noqa: E402
from fabrec_hf.evaluation.scoring import (  # noqa: E402
    ScoringSettings,
    evaluate_checkpoint,
    find_subsets,
    score_faces,
    summarize_scores,
)
from fabrec_hf.inference.dataset_prediction import predict_dataset  # noqa: E402
from fabrec_hf.model.configuration_fabrec import FabRecConfig  # noqa: E402
from fabrec_hf.model.image_processing_fabrec import FabRecImageProcessor  # noqa: E402
from fabrec_hf.model.known_schemes import LandmarkScheme, Normalizer, get_scheme  # noqa: E402
from fabrec_hf.model.modeling_fabrec import FabRecForLandmarkDetection  # noqa: E402
from support.scored_faces import make_dataset  # noqa: E402


TINY = {"image_size": 32, "widths": [4, 8, 8, 8], "encoder_depth": 1, "heatmap_size": 32}
SCHEME = get_scheme("mtfl")
PAPER = ScoringSettings(protocol="paper")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = FabRecConfig(**TINY, num_landmarks=5, heatmap_sigma=2.0, landmark_scheme=SCHEME.to_dict())
    return FabRecForLandmarkDetection(config).eval()


@pytest.fixture(scope="module")
def processor():
    return FabRecImageProcessor(size=32)


@pytest.fixture(scope="module")
def faces():
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (7, 6, 8, 3), dtype=np.uint8)
    images = [Image.fromarray(pixels).resize((80, 60), Image.Resampling.BICUBIC) for pixels in small]
    landmarks = rng.uniform(10, 50, (7, 5, 2))
    landmarks[2, 3] = np.nan
    boxes = np.concatenate([rng.uniform(-5, 20, (7, 2)), rng.uniform(20, 50, (7, 2))], axis=1)
    return make_dataset(images, landmarks, boxes)


def scores_by_loops(model, processor, dataset):
    """Score face by face by way of the public post-processing, in plain Python."""
    errors = []
    for row in dataset:
        inputs = processor(row["image"], boxes=[row["box"]])
        with torch.no_grad():
            outputs = model(inputs["pixel_values"])
        face = processor.post_process_keypoint_detection(outputs, inputs["crop_boxes"], num_images=1)[0][0]
        distances = [
            math.dist(found, true)
            for found, true in zip(face["keypoints"].tolist(), row["landmarks"], strict=True)
            if not math.isnan(true[0])
        ]
        errors.append(100 * sum(distances) / len(distances) / math.dist(row["landmarks"][0], row["landmarks"][1]))
    return errors


@pytest.mark.parametrize("batch_size", [1, 3, 7, 32])
def test_scores_are_those_of_single_faces_for_any_batch_size(model, processor, faces, batch_size):
    errors = scores_by_loops(model, processor, faces)
    threshold = sorted(errors)[3]  # four faces are no failures
    result = evaluate_checkpoint(model, processor, faces, ScoringSettings(batch_size), threshold * 1.001)
    assert result["nme"] == pytest.approx(sum(errors) / 7, rel=1e-4)
    assert result["failure_rate"] == pytest.approx(100 * 3 / 7)
    assert result["count"] == 7
    assert set(result["parts"]) == {"eyes", "nose", "mouth"}
    assert result["normalizer"] == {"kind": "points", "points": [0, 1]}


def test_no_batch_size_and_no_number_of_threads_changes_the_numbers(model, processor, faces):
    """Up to four faces are computed together, so that smaller batches may differ in the last digits of 32 bits."""
    before = torch.get_num_threads()
    results = {}
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            for batch_size in (1, 2, 4, 5, 8, 32):
                results[threads, batch_size] = evaluate_checkpoint(
                    model, processor, faces, ScoringSettings(batch_size)
                )
                assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    expected = results[1, 32]
    for (threads, batch_size), result in results.items():
        if batch_size >= 4:
            assert result == expected, (threads, batch_size)
        for key in ("nme", "auc", "failure_rate"):
            assert result[key] == pytest.approx(expected[key], rel=1e-6)
        assert result["parts"] == pytest.approx(expected["parts"], rel=1e-6)


def test_its_own_predictions_are_without_error(model, processor, faces):
    points = predict_dataset(model, processor, faces, batch_size=2)
    labeled = make_dataset(faces["image"], points, faces["box"])
    result = evaluate_checkpoint(model, processor, labeled)
    assert result["nme"] == pytest.approx(0, abs=1e-3)
    assert result["auc"] == pytest.approx(1, abs=1e-4)
    assert result["failure_rate"] == 0


def test_paper_protocol_is_the_model_configured_for_argmax(model, processor, faces):
    config = FabRecConfig.from_dict(model.config.to_dict() | {"decoding": "argmax"})
    argmax = FabRecForLandmarkDetection(config).eval()
    argmax.load_state_dict(model.state_dict())
    errors = scores_by_loops(argmax, processor, faces)
    result = evaluate_checkpoint(model, processor, faces, PAPER)
    assert result["nme"] == pytest.approx(sum(errors) / 7, rel=1e-4)
    assert result["nme"] != pytest.approx(evaluate_checkpoint(model, processor, faces)["nme"], rel=1e-4)
    assert (result["protocol"], result["decoding"], result["flip_average"]) == ("paper", "argmax", False)
    with pytest.raises(ValueError, match="one of default, paper"):
        evaluate_checkpoint(model, processor, faces, ScoringSettings(protocol="best"))


def test_the_record_says_whether_landmarks_were_corrected_by_the_shape_prior(model, processor, faces):
    prior = FabRecForLandmarkDetection(FabRecConfig.from_dict(model.config.to_dict() | {"shape_prior": True})).eval()
    corrected = evaluate_checkpoint(prior, processor, faces)
    as_in_paper = evaluate_checkpoint(prior, processor, faces, PAPER)
    without = evaluate_checkpoint(model, processor, faces)
    assert [result["shape_prior"] for result in (corrected, as_in_paper, without)] == [True, False, False]
    assert "corrected by the shape prior" in describe_measurement(corrected)
    assert "prior" not in describe_measurement(as_in_paper) + describe_measurement(without)


def test_flip_average_treats_a_face_and_its_mirror_image_alike(model, processor, faces):
    """Mirrored faces with mirrored labels get the same score exactly when both views are averaged."""
    width = faces[0]["image"].width
    points = np.array(faces["landmarks"])[:, SCHEME.flip_index]
    points[..., 0] = width - 1 - points[..., 0]
    boxes = np.array(faces["box"])
    boxes[:, 0] = width - boxes[:, 0] - boxes[:, 2]
    mirrored = make_dataset([ImageOps.mirror(image) for image in faces["image"]], points, boxes)
    scores = {}
    for flip in (True, False):
        here = evaluate_checkpoint(model, processor, faces, ScoringSettings(flip_average=flip))
        there = evaluate_checkpoint(model, processor, mirrored, ScoringSettings(flip_average=flip))
        scores[flip] = abs(here["nme"] - there["nme"]) / here["nme"]
    assert scores[True] < 1e-3 < scores[False]


def test_evaluation_leaves_the_model_and_the_random_numbers_alone(model, processor, faces):
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    evaluate_checkpoint(model, processor, faces, ScoringSettings(protocol="paper", flip_average=True))
    assert model.training and model.transfer_layers.training
    assert (model.config.decoding, model.config.flip_average) == ("subpixel", False)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None and parameter.device.type == "cpu" for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), state)
    model.eval()


def test_data_that_cannot_be_scored(model, processor, faces):
    with pytest.raises(DataError, match="no column box"):
        evaluate_checkpoint(model, processor, faces.remove_columns("box"))
    with pytest.raises(SchemeError, match="finds the 5 points of mtfl, but the data has 68"):
        evaluate_checkpoint(model, processor, make_dataset(faces["image"], np.ones((7, 68, 2)), faces["box"]))
    boxes = np.array(faces["box"])
    boxes[4, 3] = 0
    with pytest.raises(DataError, match="Row 4 has a box without area"):
        evaluate_checkpoint(model, processor, make_dataset(faces["image"], faces["landmarks"], boxes))
    points = np.array(faces["landmarks"])
    points[5] = 1.0
    with pytest.raises(DataError, match="Row 5 has a normalizing length of zero"):
        evaluate_checkpoint(model, processor, make_dataset(faces["image"], points, faces["box"]))
    with pytest.raises(DataError, match="none has both an annotated point"):
        evaluate_checkpoint(model, processor, make_dataset(faces["image"], np.full((7, 5, 2), np.nan), faces["box"]))
    rows = faces.to_list()
    rows[3]["box"] = None
    with pytest.raises(DataError, match="Row 3 has no face box"):
        evaluate_checkpoint(model, processor, datasets.Dataset.from_list(rows, features=faces.features))
    rows = faces.to_list()
    rows[6]["landmarks"].append([1.0, 1.0])
    with pytest.raises(DataError, match="the same number of landmarks"):
        evaluate_checkpoint(model, processor, datasets.Dataset.from_list(rows, features=faces.features))
    with pytest.raises(DataError, match="holds no face"):
        evaluate_checkpoint(model, processor, faces.select([]))
    broken = faces.cast_column("image", datasets.Image(decode=False)).to_dict()
    broken["image"][5]["bytes"] = broken["image"][5]["bytes"][:100]
    broken = datasets.Dataset.from_dict(broken, features=faces.features)
    with pytest.raises(DataError, match="rows 4 to 6 cannot be read"):
        evaluate_checkpoint(model, processor, broken, ScoringSettings(batch_size=4))


def test_models_that_cannot_be_scored(processor, faces):
    bare = FabRecForLandmarkDetection(FabRecConfig(**TINY, num_landmarks=5))
    with pytest.raises(SchemeError, match="carries no landmark scheme"):
        evaluate_checkpoint(bare, processor, faces)
    scheme = {"name": "dots", "num_landmarks": 5}
    unpaired = FabRecForLandmarkDetection(FabRecConfig(**TINY, num_landmarks=5, landmark_scheme=scheme))
    assert evaluate_checkpoint(unpaired, processor, faces)["normalizer"] == {"kind": "box"}
    with pytest.raises(SchemeError, match="dots has no flip pairs"):
        evaluate_checkpoint(unpaired, processor, faces, ScoringSettings(flip_average=True))


def test_annotations_are_those_of_the_rows(faces):
    many = datasets.concatenate_datasets([faces] * 150)  # more than are read at a time
    targets, boxes = annotations(many)
    assert targets.shape == (1050, 5, 2) and targets.dtype == boxes.dtype == np.float64
    np.testing.assert_array_equal(targets, np.tile(np.array(faces["landmarks"]), (150, 1, 1)))
    np.testing.assert_array_equal(boxes, np.tile(np.array(faces["box"]), (150, 1)))
    with pytest.raises(DataError, match="Row 1050 has a box without area"):
        annotations(datasets.concatenate_datasets([many, make_dataset(faces["image"][:1], [[[0, 0]] * 5], [[0] * 4])]))
    with pytest.raises(DataError, match="Row 1024 has 4 landmarks, the first row has 5"):
        fewer = make_dataset(faces["image"][:1], [[[0, 0]] * 4], [[0, 0, 5, 5]])
        annotations(datasets.concatenate_datasets([many.select(range(1024)), fewer]))


def test_the_normalizer_only_scales_the_errors_of_a_face(model, processor, faces):
    points, boxes = annotations(faces)
    own = score_faces(model, processor, faces)
    eyes = np.linalg.norm(points[:, 0] - points[:, 1], axis=1)
    for normalizer, lengths in (
        (Normalizer("box"), boxes[:, 2:].max(axis=1)),
        (Normalizer("box_diagonal"), np.hypot(boxes[:, 2], boxes[:, 3])),
        (Normalizer("points", (2, (3, 4))), np.linalg.norm(points[:, 2] - points[:, 3:].mean(axis=1), axis=1)),
    ):
        scores = score_faces(model, processor, faces, ScoringSettings(normalizer=normalizer))
        np.testing.assert_allclose(scores.errors, own.errors * eyes / lengths, rtol=1e-9)
        result = evaluate_checkpoint(model, processor, faces, ScoringSettings(normalizer=normalizer))
        assert result["normalizer"] == normalizer.to_dict()
        scored = scores.errors[~np.isnan(scores.errors)]
        assert result["nme"] == pytest.approx(scored.mean())


def test_the_worst_faces_are_kept_with_what_was_found_in_them(model, processor, faces):
    scores = score_faces(model, processor, faces, ScoringSettings(keep_worst=3))
    order = np.argsort(-scores.errors)
    assert [face.row for face in scores.worst] == order[:3].tolist()
    assert [face.error for face in scores.worst] == scores.errors[order[:3]].tolist()
    found = predict_dataset(model, processor, faces)
    for face in scores.worst:
        np.testing.assert_array_equal(face.landmarks, found[face.row])
    assert score_faces(model, processor, faces).worst == ()


@pytest.fixture(scope="module")
def model_300w():
    torch.manual_seed(1)
    config = FabRecConfig(**TINY, num_landmarks=68, heatmap_sigma=2.0, landmark_scheme=get_scheme("300w").to_dict())
    return FabRecForLandmarkDetection(config).eval()


@pytest.fixture(scope="module")
def faces_300w(faces):
    points = np.random.default_rng(3).uniform(10, 50, (7, 68, 2))
    points[4] = np.nan  # the one challenging face cannot be scored
    subsets = ["helen_test", "lfpw_test", "indoor", "outdoor", "ibug", "helen_test", "indoor"]
    dataset = make_dataset(faces["image"], points, faces["box"])
    return dataset.add_column("subset", subsets)


def test_subsets_have_scores_of_their_own(model_300w, processor, faces_300w):
    result = evaluate_checkpoint(model_300w, processor, faces_300w, threshold=200.0)
    rows = {
        "common": [0, 1, 5],
        "full": [0, 1, 4, 5],
        "indoor": [2, 6],
        "outdoor": [3],
        "private": [2, 3, 6],
    }
    assert set(result["subsets"]) == {*rows, "challenging"}
    for name, chosen in rows.items():
        alone = evaluate_checkpoint(
            model_300w, processor, faces_300w.select(chosen).remove_columns("subset"), threshold=200.0
        )
        subset = result["subsets"][name]
        assert subset["count"] == alone["count"] and subset["not_scored"] == alone["not_scored"]
        for key in ("nme", "failure_rate", "auc", "parts"):
            assert subset[key] == pytest.approx(alone[key], rel=1e-6)
    unscored = result["subsets"]["challenging"]
    assert (unscored["count"], unscored["not_scored"], unscored["nme"]) == (0, 1, None)
    assert result["count"] == 6 and result["not_scored"] == 1


def test_summaries_are_those_of_the_errors(model_300w, processor, faces_300w):
    scores = score_faces(model_300w, processor, faces_300w)
    masks = find_subsets(faces_300w, scores.scheme)
    result = summarize_scores(scores, masks, 150.0)
    private = scores.errors[[2, 3, 6]]
    assert result["subsets"]["private"]["nme"] == pytest.approx(private.mean())
    assert result["subsets"]["private"]["failure_rate"] == pytest.approx(100 * (private > 150).mean())
    assert result["subsets"]["private"]["auc"] == pytest.approx(np.clip(1 - private / 150, 0, None).mean())
    jaw = scores.part_errors["jaw"]
    assert result["parts"]["jaw"] == pytest.approx(jaw[~np.isnan(jaw)].mean())


# Where the 68 points stand among the 98, written down once more.
CHOSEN = [*range(0, 33, 2), *range(33, 38), *range(42, 47), *range(51, 62), 63, 64, 65, 67, 68, 69, 71, 72, 73]
CHOSEN += [75, *range(76, 96)]


@pytest.fixture(scope="module")
def wflw():
    """A detector of 98 points, faces with as many, and what it finds in them."""
    torch.manual_seed(0)
    points = {"num_landmarks": 98, "heatmap_sigma": 2.0, "landmark_scheme": get_scheme("wflw").to_dict()}
    detector = FabRecForLandmarkDetection(FabRecConfig(**TINY, **points)).eval()
    random = np.random.default_rng(1)
    images = [Image.fromarray(random.integers(0, 256, (60, 80, 3), dtype=np.uint8)) for _ in range(5)]
    truth = random.uniform(5, 50, (5, 98, 2))
    boxes = np.tile([10.0, 5.0, 40.0, 45.0], (5, 1))
    return detector, images, truth, boxes


def test_a_detector_of_98_points_is_scored_on_68(wflw, processor):
    """As those of its own points that the 68 are; outer eye corners are outer eye corners in both."""
    detector, images, truth, boxes = wflw
    own = score_faces(detector, processor, make_dataset(images, truth, boxes))
    fewer = make_dataset(images, truth[:, CHOSEN], boxes)
    scores = score_faces(detector, processor, fewer, ScoringSettings(keep_worst=1))
    assert (scores.scheme.name, scores.converted_from, own.converted_from) == ("300w", "wflw", None)
    np.testing.assert_allclose(scores.point_errors, own.point_errors[:, CHOSEN], rtol=1e-9)
    np.testing.assert_array_equal(scores.point_scores, own.point_scores[:, CHOSEN])
    assert scores.worst[0].landmarks.shape == (68, 2)
    result = evaluate_checkpoint(detector, processor, fewer)
    assert result["nme"] == pytest.approx(own.point_errors[:, CHOSEN].mean(), rel=1e-9)
    assert result["scheme"] == "300w" and result["converted_from"] == "wflw"
    assert result["normalizer"] == {"kind": "points", "points": [36, 45]}
    assert "converted_from" not in evaluate_checkpoint(detector, processor, make_dataset(images, truth, boxes))


def test_a_detector_of_98_points_is_scored_on_five(wflw, processor):
    detector, images, truth, boxes = wflw
    found = predict_dataset(detector, processor, make_dataset(images, truth, boxes))
    eyes = [[60, 61, 63, 64, 65, 67], [68, 69, 71, 72, 73, 75]]
    five = np.stack([*(found[:, eye].mean(axis=1) for eye in eyes), *(found[:, i] for i in (54, 76, 82))], axis=1)
    moved = five + [3.0, 4.0]  # five pixels off
    scores = score_faces(detector, processor, make_dataset(images, moved, boxes))
    lengths = np.linalg.norm(moved[:, 0] - moved[:, 1], axis=1)
    np.testing.assert_allclose(scores.errors, 100 * 5 / lengths, rtol=1e-6)
    assert scores.converted_from == "wflw" and scores.scheme == SCHEME
    own = score_faces(detector, processor, make_dataset(images, truth, boxes)).point_scores
    np.testing.assert_allclose(scores.point_scores[:, 0], own[:, eyes[0]].mean(axis=1), rtol=1e-6)


def test_only_points_that_are_there_are_converted(wflw):
    config = wflw[0].config
    assert [scored_scheme(config, count).name for count in (98, 68, 5)] == ["wflw", "300w", "mtfl"]
    with pytest.raises(SchemeError, match="finds the 98 points of wflw, but the data has 7"):
        scored_scheme(config, 7)
    fewer = FabRecConfig(num_landmarks=68, landmark_scheme=get_scheme("300w").to_dict())
    with pytest.raises(SchemeError, match="but the data has 98; convert the data by fabrec convert --to-scheme 300w"):
        scored_scheme(fewer, 98)
    other = LandmarkScheme("wflw", 98)  # called so, but nothing says that these are its points
    with pytest.raises(SchemeError, match="finds the 98 points of wflw, but the data has 68"):
        scored_scheme(FabRecConfig(num_landmarks=98, landmark_scheme=other.to_dict()), 68)
