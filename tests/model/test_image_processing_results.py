"""What the image processors give back: points in the picture, types, and themselves from a file."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor

from fabrec_hf.model.geometry import crop_box_from_box
from fabrec_hf.model.image_processing_fabrec import FabRecImageProcessor
from fabrec_hf.model.image_processing_pil_fabrec import FabRecImageProcessorPil
from support.faces import SHARED
from support.processor_cases import BACKENDS, BOXES, noise


def test_post_processing_by_hand(backend):
    """Points go back by their own crop, results stand by picture and face, in order."""
    landmarks = torch.tensor([[[0.0, 0.0], [0.5, 1.0]], [[0.25, 0.5], [1.0, 1.0]], [[0.1, 0.2], [0.3, 0.4]]])
    outputs = SimpleNamespace(landmarks=landmarks, scores=torch.tensor([[0.9, 0.2], [0.5, 0.6], [0.7, 0.8]]))
    geometry = {
        "crop_boxes": torch.tensor([[10, 20, 100, 100], [-5, -5, 40, 40], [0, 0, 10, 10]], dtype=torch.float64),
        "face_boxes": torch.tensor([[20, 40, 50, 60], [0, 0, 20, 20], [1, 1, 5, 5]], dtype=torch.float64),
        "image_indices": torch.tensor([0, 2, 0]),
    }
    results = backend().post_process_keypoint_detection(outputs, num_images=4, threshold=0.5, **geometry)
    assert [len(faces) for faces in results] == [2, 0, 1, 0]
    first, third = results[0]
    torch.testing.assert_close(first["keypoints"], torch.tensor([[9.5, 19.5], [torch.nan] * 2]), equal_nan=True)
    torch.testing.assert_close(third["keypoints"], torch.tensor([[0.5, 1.5], [2.5, 3.5]]))
    torch.testing.assert_close(results[2][0]["keypoints"], torch.tensor([[4.5, 14.5], [34.5, 34.5]]))
    torch.testing.assert_close(first["scores"], torch.tensor([0.9, 0.2]))
    assert [face["bbox"].tolist() for face in results[0]] == [[20, 40, 50, 60], [1, 1, 5, 5]]

    without = backend().post_process_keypoint_detection(outputs, geometry["crop_boxes"])
    assert [len(faces) for faces in without] == [1, 1, 1]
    assert without[0][0]["keypoints"][1].tolist() == pytest.approx([59.5, 119.5])
    one_image = backend().post_process_keypoint_detection(outputs, geometry["crop_boxes"], num_images=1)
    assert [len(faces) for faces in one_image] == [3]


def test_post_processing_of_what_the_processor_returned(backend):
    """Labels that go in as landmarks come out as the points they were made of, half precision and empty ones too."""
    processor = backend(size=16)
    images, boxes = [noise()] * 3, [[BOXES[0], BOXES[6]], [], [BOXES[7]]]
    inputs = processor(images, boxes)
    points = torch.tensor(np.random.default_rng(3).uniform(0, 100, (3, 5, 2)))
    outputs = SimpleNamespace(
        landmarks=processor.landmarks_to_crop(points, inputs["crop_boxes"]), scores=torch.ones(3, 5)
    )
    geometry = {name: inputs[name] for name in ("crop_boxes", "face_boxes", "image_indices")}
    results = processor.post_process_keypoint_detection(outputs, **geometry, num_images=3)
    assert [len(faces) for faces in results] == [2, 0, 1]
    flat = torch.stack([face["keypoints"] for faces in results for face in faces])
    torch.testing.assert_close(flat, points, atol=1e-3, rtol=0)
    assert results[2][0]["bbox"].tolist() == list(BOXES[7])

    nothing = SimpleNamespace(landmarks=torch.empty(0, 5, 2), scores=torch.empty(0, 5))
    empty = processor(images, [[], [], []])
    geometry = {name: empty[name] for name in geometry}
    assert processor.post_process_keypoint_detection(nothing, **geometry, num_images=3) == [[], [], []]
    half = SimpleNamespace(landmarks=torch.full((1, 1, 2), 0.5, dtype=torch.bfloat16), scores=torch.ones(1, 1))
    back = processor.post_process_keypoint_detection(half, [[1000.0, 2001.0, 100.0, 100.0]])[0][0]["keypoints"]
    assert back.tolist() == [[1049.5, 2050.5]]


def test_post_processing_refuses_what_does_not_belong_together(backend):
    """Numbers of faces that disagree, and indices of images that are not there."""
    outputs = SimpleNamespace(landmarks=torch.zeros(2, 5, 2), scores=torch.zeros(2, 5))
    with pytest.raises(ValueError, match="crop_boxes 3"):
        backend().post_process_keypoint_detection(outputs, torch.ones(3, 4))
    with pytest.raises(ValueError, match="image_indices must lie"):
        backend().post_process_keypoint_detection(outputs, torch.ones(2, 4), image_indices=[0, 5], num_images=2)


def test_casting_keeps_the_geometry(backend):
    """`.to(float16)` casts pixels only: 2049.3 is not a half-precision number."""
    inputs = backend(size=8)(noise(), [2049.3, 1.1, 30.0, 30.0]).to("cpu", torch.float16)
    assert inputs["pixel_values"].dtype == torch.float16
    assert inputs["crop_boxes"].dtype == torch.float64
    assert inputs["face_boxes"].tolist() == [[2049.3, 1.1, 30.0, 30.0]]


def test_numpy_results(backend):
    """`return_tensors="np"` gives arrays of the same values."""
    tensors, arrays = (backend(size=8)(noise(), BOXES[0], return_tensors=kind) for kind in ("pt", "np"))
    for name in tensors:
        assert isinstance(arrays[name], np.ndarray)
        assert np.array_equal(arrays[name], tensors[name].numpy())


def test_device_argument():
    """The torchvision backend works where it is told to; the geometry stays on the CPU."""
    inputs = FabRecImageProcessor(size=8)(noise(), BOXES[0], device="cpu")
    assert inputs["pixel_values"].device.type == "cpu"
    if torch.cuda.is_available():
        on_gpu = FabRecImageProcessor(size=8)(noise(), [BOXES[0], BOXES[10]], device="cuda")
        on_cpu = FabRecImageProcessor(size=8)(noise(), [BOXES[0], BOXES[10]])
        assert on_gpu["pixel_values"].is_cuda and not on_gpu["crop_boxes"].is_cuda
        torch.testing.assert_close(on_gpu["pixel_values"].cpu(), on_cpu["pixel_values"], atol=1e-3, rtol=0)


def test_save_and_load(backend, tmp_path):
    """Attributes survive, also those that are zero, and the file names the processor without its backend."""
    processor = backend(size=64, extend_top=0.0, extend_bottom=0.3, resample=Image.Resampling.BICUBIC)
    processor.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert saved["image_processor_type"] == "FabRecImageProcessor"
    assert saved["image_mean"] == [0.518, 0.418, 0.361]
    for cls in BACKENDS:
        loaded = cls.from_pretrained(tmp_path)
        assert (loaded.extend_top, loaded.extend_bottom, loaded.size["height"]) == (0.0, 0.3, 64)
        expected = processor(noise(), list(BOXES[:3]))["pixel_values"]
        torch.testing.assert_close(loaded(noise(), list(BOXES[:3]))["pixel_values"], expected, atol=1e-5, rtol=0)
    assert FabRecImageProcessor.from_pretrained(tmp_path, size=32).size["width"] == 32


def test_auto_image_processor(tmp_path):
    """The Auto class finds both backends once they are registered."""
    from fabrec_hf.model.configuration_fabrec import FabRecConfig

    classes = {"torchvision": FabRecImageProcessor, "pil": FabRecImageProcessorPil}
    AutoImageProcessor.register(FabRecConfig, image_processor_classes=classes, exist_ok=True)
    FabRecImageProcessor(size=64).save_pretrained(tmp_path)
    for backend_name, cls in [(None, FabRecImageProcessor), *classes.items()]:
        loaded = AutoImageProcessor.from_pretrained(tmp_path, backend=backend_name)
        assert type(loaded) is cls and loaded.size["height"] == 64


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data")
def test_real_faces_are_centered_in_their_crops(backend):
    """The margins put the points of real faces where the paper's crops have them: inside, chin low, brows high."""
    from datasets import load_dataset

    path = str(SHARED / "data" / "300w" / "test-00000-of-00001.parquet")
    rows = load_dataset("parquet", data_files=path, split="train[:16]")
    inputs = backend(size=32)([row["image"] for row in rows], [[row["box"]] for row in rows])
    points = np.array([row["landmarks"] for row in rows])
    inside = backend.landmarks_to_crop(points, inputs["crop_boxes"])
    assert -0.01 < inside.min() and inside.max() < 1.01
    # A face that is taller than wide fills the height: 0.2 / 1.32 above, 0.12 / 1.32 below.
    box = np.array([row["box"] for row in rows])
    tall = box[:, 3] * 1.32 >= box[:, 2]
    np.testing.assert_allclose(inside[tall][..., 1].min(axis=1), 0.2 / 1.32, atol=0.02)
    np.testing.assert_allclose(inside[tall][..., 1].max(axis=1), 1.2 / 1.32, atol=0.02)


def test_detections_become_boxes_of_the_checkpoints_own_convention():
    """A tight box of 100 x 100: 300-W's crop is 132 wide; 0.05 + 0.25 margins reach it from a box 101.54 high."""
    detected = [[50.0, 40.0, 100.0, 100.0], [0.0, 0.0, 300.0, 100.0]]
    assert FabRecImageProcessor().boxes_from_detections(detected) == [tuple(box) for box in detected]
    other = FabRecImageProcessor(extend_top=0.05, extend_bottom=0.25)
    boxes = other.boxes_from_detections(detected)
    height = 132 / 1.3
    assert boxes[0] == pytest.approx((34.0, 20.0 + 0.05 * height, 132.0, height))
    crops = crop_box_from_box(np.array(boxes), 0.05, 0.25)
    np.testing.assert_allclose(crops, crop_box_from_box(np.array(detected)), atol=1e-9)
    assert other.boxes_from_detections([]) == []
