"""The one way from pictures and boxes to landmarks, and the twin that the pipeline runs on it."""

import copy
import pickle
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import pipeline

import fabrec_hf
from fabrec_hf import FabRecImageProcessor, FaceLandmarkPipeline, get_scheme
from fabrec_hf.inference.landmark_finder import LandmarkFinder
from fabrec_hf.model.face_detection import Detection
from fabrec_hf.model.landmark_reading import FusedTwin, faces_of, read_landmarks
from fabrec_hf.model.second_look import FaceBox
from support.tiny_models import random_statistics, tiny_model


EXAMPLES = Path(__file__).parents[2] / "examples"
BOXES = [[(40, 30, 60, 70), (100.5, 20.25, 50, 50)], [], [(10, 20, 50, 60)]]


def noise_pictures():
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (height, 120, 3), dtype=np.uint8) for height in (150, 90, 110)]


class Fixed:
    """Stands for a network: its i-th crop of a call has all points at i / 10; it counts its passes."""

    device, dtype = torch.device("cpu"), torch.float32
    config = SimpleNamespace(landmark_scheme=None, calibration=None)

    def __init__(self):
        self.passes = []

    def __call__(self, pixel_values):
        start = sum(self.passes)
        self.passes.append(len(pixel_values))
        places = torch.arange(start, start + len(pixel_values)) / 10
        scores = places[:, None].expand(-1, 3)
        return SimpleNamespace(landmarks=scores[..., None].expand(-1, -1, 2), scores=scores)


@pytest.mark.parametrize(("faces_per_pass", "passes"), [(32, [3]), (2, [2, 1])])
def test_points_go_back_to_the_pictures_by_hand(faces_per_pass, passes):
    model, processor = Fixed(), FabRecImageProcessor(size=64)
    reading = read_landmarks(
        model, processor, noise_pictures(), BOXES, second_look=False, faces_per_pass=faces_per_pass
    )
    assert model.passes == passes
    # 20 % above and 12 % below a box of height 70 make 92.4 px, of height 50 66 px, of height 60 79.2 px.
    corners = [[70 - 46.2, 30 - 14], [125.5 - 33, 20.25 - 10], [35 - 39.6, 20 - 12]]
    expected = np.array(corners) + np.array([0.0, 0.1, 0.2])[:, None] * np.array([[92.4], [66], [79.2]]) - 0.5
    assert reading.points.dtype == np.float64
    np.testing.assert_allclose(reading.points, np.repeat(expected[:, None], 3, axis=1), atol=1e-5)
    first, second, third = faces_of(reading, processor, 3, threshold=0.15)
    assert [len(first), len(second), len(third)] == [2, 0, 1]
    assert torch.isnan(first[1]["keypoints"]).all() and "is_face" not in first[0]
    np.testing.assert_allclose(third[0]["keypoints"].numpy(), np.repeat(expected[2:], 3, axis=0), atol=1e-4)


def test_one_look_asks_no_detector_and_turns_what_is_known_to_be_turned():
    looks = []
    arguments = (FabRecImageProcessor(size=64), noise_pictures(), [[BOXES[0][0], FaceBox(BOXES[0][1], 90.0)], [], []])
    look = lambda image, box: looks.append(box) or Detection(tuple(box), 0.9, 0.0)  # noqa: E731
    reading = read_landmarks(Fixed(), *arguments, look, second_look=False)
    assert looks == [] and reading.geometry["rolls"].tolist() == [0, 90]
    read_landmarks(Fixed(), *arguments, look)
    assert len(looks) == 1  # at the box of which nothing was known


def test_pipeline_and_finder_agree_and_run_the_fused_network(monkeypatch):
    name = str(fabrec_hf.weights_path("3fabrec-300w"))
    detect, finder = pipeline("face-landmark-detection", model=name, device="cpu"), LandmarkFinder(name, "cpu")
    monkeypatch.setattr(type(detect.model), "forward", lambda *_, **__: pytest.fail("the slower network was run"))
    for file in ("astronaut.jpg", "grace_hopper.jpg"):
        photograph = Image.open(EXAMPLES / file)
        (face,) = detect(photograph)
        (same,) = finder.find([photograph], [finder.detect(photograph)])[0]
        np.testing.assert_allclose(face["keypoints"], same["keypoints"].numpy(), atol=1e-4)
        np.testing.assert_allclose(face["scores"], same["scores"].numpy(), atol=1e-6)
        # A turned face, read a second time in both.
        turned = photograph.convert("RGB").rotate(60, Image.Resampling.BICUBIC, expand=True)
        (face,) = detect(turned)
        (same,) = finder.find([turned], [finder.detect(turned)])[0]
        assert face["roll"] == pytest.approx(float(same["roll"]), abs=1e-4) and abs(face["roll"]) > 20
        np.testing.assert_allclose(face["keypoints"], same["keypoints"].numpy(), atol=1e-4)


def flippable():
    return random_statistics(tiny_model(landmark_scheme=get_scheme("mtfl").to_dict())).eval()


def test_a_twin_is_kept_until_its_model_changes():
    model, twins = flippable(), FusedTwin()
    pixels = torch.rand(1, 3, 64, 64) - 0.45
    twin = twins(model)
    assert twins(model) is twin and twin is not model
    with torch.no_grad():
        model.heatmap_head.weight.mul_(-1)
    assert twins(model) is not twin
    torch.testing.assert_close(twins(model)(pixels).landmarks, model(pixels).landmarks, atol=1e-4, rtol=0)
    model.config.flip_average = True
    torch.testing.assert_close(twins(model)(pixels).landmarks, model(pixels).landmarks, atol=1e-4, rtol=0)
    other = flippable()
    assert twins(other) is not twins(model)


def test_a_model_that_is_more_than_its_weights_runs_itself():
    twins, plain = FusedTwin(), flippable()
    assert twins(plain) is not plain
    for changed in (flippable().half(), flippable().train(), torch.compile(flippable()), Fixed()):
        assert twins(changed) is changed
    hooked = flippable()
    handle = hooked.autoencoder.encoder.register_forward_hook(lambda *_: None)
    assert twins(hooked) is hooked
    handle.remove()
    assert twins(hooked) is not hooked


def test_a_pipeline_can_still_be_copied():
    model = flippable()
    detect = FaceLandmarkPipeline(model=model, image_processor=FabRecImageProcessor(size=64), device="cpu")
    expected = detect(noise_pictures()[0], boxes=BOXES[0])
    for twin in (copy.deepcopy(detect), pickle.loads(pickle.dumps(detect))):
        assert twin(noise_pictures()[0], boxes=BOXES[0]) == expected
