"""Cropping and detecting on a device: the processor's crops, the model's points. A GPU is used where there is one."""

import numpy as np
import pytest
import torch

from fabrec_hf import FabRecImageProcessor
from fabrec_hf.inference.device_detector import DeviceLandmarkDetector
from support.tiny_models import random_statistics, tiny_model


DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]
# Inside, across every border, far outside, tiny, and so large that the crop is shrunk by blocks first.
BOXES = [
    [[20.3, 10.1, 50, 60], [-30, -20, 80, 90]],
    [],
    [[500, 500, 20, 20], [3, 4, 0.5, 0.25], [-900, -800, 2500, 2600], [150, 90, 120, 100]],
]


def photographs(device="cpu"):
    random = np.random.default_rng(0)
    sizes = [(100, 130), (20, 20), (120, 200)]
    pixels = [np.kron(random.integers(0, 256, (3, h // 10, w // 10)), np.ones((10, 10))) for h, w in sizes]
    return [torch.from_numpy(picture.astype(np.uint8)).to(device) for picture in pixels]


def expected_results(model, processor, images):
    inputs = processor([image.cpu() for image in images], boxes=BOXES, input_data_format="channels_first")
    with torch.no_grad():
        outputs = model(inputs["pixel_values"])
    points = processor.landmarks_from_crop(outputs.landmarks, inputs["crop_boxes"])
    return inputs, points, outputs.scores


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("batch_size", [1, 4, 16])
def test_the_points_are_those_of_processor_and_model(device, batch_size):
    model, processor = random_statistics(tiny_model()), FabRecImageProcessor(size=64, image_std=[0.5, 1.0, 2.0])
    images = photographs(device)
    inputs, points, scores = expected_results(model, processor, photographs())
    detect = DeviceLandmarkDetector(model, processor, device, torch.float32, batch_size)
    found = detect(images, BOXES)
    assert found.image_indices == inputs["image_indices"].tolist() == [0, 0, 2, 2, 2, 2]
    sides = inputs["crop_boxes"][:, 2, None, None]
    assert ((found.keypoints.cpu() - points).abs() / sides).max() * 64 < 1e-3
    torch.testing.assert_close(found.scores.cpu(), scores, atol=1e-4, rtol=0)
    assert found.keypoints.device.type == device and found.keypoints.dtype == torch.float32


def test_the_crops_are_those_of_the_processor():
    model, processor = tiny_model(), FabRecImageProcessor(size=64)
    inputs, _, _ = expected_results(model, processor, photographs())
    detect = DeviceLandmarkDetector(model, processor, "cpu")
    images = [photographs()[index] for index in inputs["image_indices"]]
    crops = detect._cut(images, inputs["crop_boxes"].numpy())
    assert crops.shape == inputs["pixel_values"].shape
    assert (crops - inputs["pixel_values"]).abs().max() < 1e-3 / 255 * 10  # a hundredth of a gray level
    assert crops.is_contiguous(memory_format=torch.channels_last)


def test_16_bits_keep_the_points_near():
    processor = FabRecImageProcessor(size=64)
    # The heatmaps of the first model have one highest place each; in those of the second two may change places.
    for model, near in ((tiny_model(), 0.005), (random_statistics(tiny_model()), None)):
        found = DeviceLandmarkDetector(model, processor, "cpu", torch.bfloat16)(photographs(), BOXES)
        inputs, points, scores = expected_results(model, processor, photographs())
        assert found.scores.dtype == torch.float32 and (found.scores - scores).abs().max() < 0.05
        if near:
            sides = inputs["crop_boxes"][:, 2, None, None]
            assert ((found.keypoints - points).abs() / sides).max() < near
            assert (points / sides).std(dim=1).min() > 10 * near  # the points are apart


def test_no_faces_are_no_results():
    detect = DeviceLandmarkDetector(tiny_model(), FabRecImageProcessor(size=64), "cpu")
    for images, boxes in (([], []), (photographs()[:1], [[]])):
        found = detect(images, boxes)
        assert found.keypoints.shape == (0, 5, 2) and found.scores.shape == (0, 5) and found.image_indices == []


@pytest.mark.parametrize(
    ("image", "boxes", "message"),
    [
        (torch.zeros(3, 9, 9), [[0, 0, 5, 5]], "uint8"),
        (torch.zeros(9, 9, 3, dtype=torch.uint8), [[0, 0, 5, 5]], r"\(3, H, W\)"),
        (torch.zeros(3, 0, 9, dtype=torch.uint8), [[0, 0, 5, 5]], "empty"),
        (torch.zeros(3, 9, 9, dtype=torch.uint8), [[0, 0, float("nan"), 5]], "finite"),
        (torch.zeros(3, 9, 9, dtype=torch.uint8), None, "list of boxes"),
    ],
)
def test_what_cannot_be_used_is_refused(image, boxes, message):
    detect = DeviceLandmarkDetector(tiny_model(), FabRecImageProcessor(size=64), "cpu")
    with pytest.raises(ValueError, match=message):
        detect([image], [boxes])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_nothing_waits_for_the_gpu_and_the_graph_gives_the_same():
    model, processor = random_statistics(tiny_model()), FabRecImageProcessor(size=64)
    images = photographs("cuda")
    recorded = DeviceLandmarkDetector(model, processor, "cuda", torch.float32, 4)
    plain = DeviceLandmarkDetector(model, processor, "cuda", torch.float32, 4, cuda_graph=False)
    recorded(images, BOXES)
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = recorded(images, BOXES)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(found.keypoints, plain(images, BOXES).keypoints, atol=1e-2, rtol=1e-5)
