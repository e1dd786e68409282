"""The estimate of a fit is one of detection: faces that are left out are cropped as the face detector finds them."""

import io

import numpy as np
import pytest
import torch
from PIL import Image


datasets = pytest.importorskip("datasets")
pytest.importorskip("kmedoids")

from fabrec_hf import FabRecAutoencoder, FabRecAutoencoderConfig, FabRecImageProcessor, get_scheme  # noqa: E402
from fabrec_hf.learning.as_detected import FacesAsDetected  # noqa: E402
from fabrec_hf.learning.fewshot import FitOptions, fit_landmarks  # noqa: E402
from fabrec_hf.learning.fit_result import describe_fit  # noqa: E402
from fabrec_hf.learning.labeled_faces import LabeledFaces  # noqa: E402
from fabrec_hf.learning.landmark_training import (  # noqa: E402
    LandmarkRecipe,
    build_model,
    predict_faces,
)
from fabrec_hf.model.face_detection import Detection  # noqa: E402
from fabrec_hf.model.turned_crops import landmarks_from_turned_crop  # noqa: E402
from support.faces import draw_face  # noqa: E402


SIZE = 96
PROCESSOR = FabRecImageProcessor(size={"height": 32, "width": 32})
SCHEME = get_scheme("mtfl")
RECIPE = LandmarkRecipe(head_steps=2, finetune_steps=2, batch_size=3, heatmap_size=16, bfloat16=False, seed=1)
# How the boxes of these annotations lie to those of the face detector: they are whole heads.
HEAD = np.array([-0.3, -0.6, 1.6, 1.8])


def whole_head(box):
    x, y, width, height = box
    return [x + HEAD[0] * width, y + HEAD[1] * height, HEAD[2] * width, HEAD[3] * height]


def as_dataset(pictures, points, boxes):
    def encoded(picture):
        file = io.BytesIO()
        picture.save(file, "PNG")
        return {"bytes": file.getvalue(), "path": None}

    features = datasets.Features(
        {
            "image": datasets.Image(),
            "landmarks": datasets.List(datasets.List(datasets.Value("float64"))),
            "box": datasets.List(datasets.Value("float64")),
        }
    )
    rows = {
        "image": [encoded(picture) for picture in pictures],
        "landmarks": [p.tolist() for p in points],
        "box": boxes,
    }
    return datasets.Dataset.from_dict(rows, features=features)


@pytest.fixture(scope="module")
def drawn():
    """Six drawn faces: pictures, points and the boxes in which the detector finds them."""
    return tuple(zip(*(draw_face(seed, SIZE) for seed in range(6)), strict=True))


def detector_of(pictures, boxes, roll=0.0):
    """Know the pictures by their pixels; beside the face find another one, that holds none of the points."""
    known = {picture.tobytes(): box for picture, box in zip(pictures, boxes, strict=True)}
    other = Detection((0.0, 0.0, 9.0, 9.0), 0.99, 0.0)

    def detect(picture):
        box = known.get(picture.tobytes())
        return [other] if box is None else [other, Detection(tuple(box), 0.9, roll)]

    return detect


def test_left_out_faces_are_cut_where_the_detector_finds_them(drawn):
    pictures, points, boxes = drawn
    annotated = as_dataset(pictures, points, [whole_head(box) for box in boxes])
    given = LabeledFaces(annotated, PROCESSOR, progress=False)
    wanted = LabeledFaces(as_dataset(pictures, points, list(boxes)), PROCESSOR, progress=False)
    cut = FacesAsDetected(annotated, given, PROCESSOR, detector_of(pictures[:5], boxes[:5]))
    rows = np.array([4, 1, 5])
    seen = cut(rows)
    assert seen.detected.tolist() == [True, True, False] and not given.detected.any()
    for place, row in enumerate(rows):
        same = given if row == 5 else wanted  # the last face is not found, and stays where it was
        assert torch.equal(seen.canvases.pixels[place], same.canvases.pixels[row])
        torch.testing.assert_close(seen.landmarks[place], same.landmarks[row])
        np.testing.assert_allclose(seen.crop_boxes[place], same.crop_boxes[row])
        # Errors by the box are still those of the given box: its sides in pixels do not change.
        np.testing.assert_allclose(seen.boxes[place, 2] * seen.crop_boxes[place, 2], HEAD[2] * boxes[row][2])
    assert not torch.equal(seen.canvases.pixels[0], given.canvases.pixels[4])


def test_a_face_that_lies_is_cut_upright(drawn):
    """A quarter turn clockwise takes the point (x, y) to (height - 1 - y, x), and the box with it."""
    pictures, points, boxes = drawn
    lying = [picture.transpose(Image.Transpose.ROTATE_270) for picture in pictures]
    turned = [np.stack([SIZE - 1 - p[:, 1], p[:, 0]], axis=1) for p in points]
    # A turned box is written as the upright one of its size about the same middle.
    middles = [(SIZE - (y + height / 2), x + width / 2) for x, y, width, height in boxes]
    as_found = [
        (a - width / 2, b - height / 2, width, height)
        for (a, b), (_, _, width, height) in zip(middles, boxes, strict=True)
    ]
    annotated = as_dataset(lying, turned, [whole_head(box) for box in boxes])
    cut = FacesAsDetected(
        annotated, LabeledFaces(annotated, PROCESSOR, progress=False), PROCESSOR, detector_of(lying, as_found, 90.0)
    )
    seen = cut(np.arange(6))
    upright = LabeledFaces(as_dataset(pictures, points, list(boxes)), PROCESSOR, progress=False)
    assert seen.detected.all() and seen.rolls.tolist() == [90.0] * 6
    torch.testing.assert_close(seen.landmarks, upright.landmarks, atol=1e-5, rtol=0)
    difference = (seen.canvases.pixels.float() - upright.canvases.pixels.float()).abs()
    assert difference.mean() < 0.5 and difference.max() < 30
    back = landmarks_from_turned_crop(seen.landmarks.double().numpy(), seen.crop_boxes, seen.rolls)
    np.testing.assert_allclose(back, turned, atol=1e-3)


def test_a_roll_that_pays_nothing_is_no_turn(drawn):
    pictures, points, boxes = drawn
    annotated = as_dataset(pictures, points, list(boxes))
    given = LabeledFaces(annotated, PROCESSOR, progress=False)
    seen = FacesAsDetected(annotated, given, PROCESSOR, detector_of(pictures, boxes, 15.0))(np.arange(6))
    assert torch.equal(seen.canvases.pixels, given.canvases.pixels) and not seen.rolls.any()


def test_the_estimate_is_that_of_the_detectors_crops(drawn, tmp_path):
    """As a detector errs that learned from the others in given boxes and meets these in detected ones."""
    pictures, points, boxes = drawn
    tiny = FabRecAutoencoderConfig(image_size=32, latent_size=8, widths=[8, 8, 16, 16])
    torch.manual_seed(0)
    FabRecAutoencoder(tiny).save_pretrained(tmp_path)
    annotated = as_dataset(pictures, points, [whole_head(box) for box in boxes])
    given = LabeledFaces(annotated, PROCESSOR, progress=False)
    wanted = LabeledFaces(as_dataset(pictures, points, list(boxes)), PROCESSOR, progress=False)
    cut = FacesAsDetected(annotated, given, PROCESSOR, detector_of(pictures, boxes))
    result = fit_landmarks(
        build_model(str(tmp_path), SCHEME, RECIPE), given, SCHEME, RECIPE, FitOptions(as_detected=cut)
    )
    left_out = np.flatnonzero(np.isfinite(result.held_out_errors))
    assert np.flatnonzero(result.held_out_faces.detected).tolist() == left_out.tolist() and len(left_out) == 2
    described = describe_fit(result, SCHEME, RECIPE, "", 1)
    assert (described["held_out_faces"], described["held_out_not_found"]) == (2, 0)
    model = build_model(str(tmp_path), SCHEME, RECIPE)  # three quarters of two steps are two
    fit_landmarks(model, given.subset(np.setdiff1d(np.arange(6), left_out)), SCHEME, RECIPE, FitOptions(folds=0))
    expected = predict_faces(model, wanted.subset(left_out), model.device).landmarks.double().numpy()
    in_pixels = expected * wanted.crop_boxes[left_out, None, 2:] + wanted.crop_boxes[left_out, None, :2] - 0.5
    for row, found in zip(left_out, in_pixels, strict=True):
        true = np.asarray(points[row])
        eyes = np.linalg.norm(true[0] - true[1])  # what errors of mtfl are divided by
        error = 100 * np.linalg.norm(found - true, axis=1).mean() / eyes
        assert result.held_out_errors[row] == pytest.approx(error, rel=1e-4)
    faces = result.held_out_faces
    np.testing.assert_allclose(faces.crop_boxes[left_out], wanted.crop_boxes[left_out])
    in_given = fit_landmarks(build_model(str(tmp_path), SCHEME, RECIPE), given, SCHEME, RECIPE)
    assert describe_fit(in_given, SCHEME, RECIPE, "", 1)["held_out_not_found"] == 2
    assert np.abs(in_given.held_out_errors - result.held_out_errors)[left_out].min() > 0.1
