"""What people do to a PyTorch model and its outputs: compile, export, cast, copy, pickle, spread over devices."""

import copy
import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForKeypointDetection, AutoProcessor

from fabrec_hf import FabRecForLandmarkDetection, get_scheme
from fabrec_hf.export.delta import save_delta
from support.tiny_checkpoints import save_autoencoder, save_landmarks
from support.tiny_models import pictures, random_statistics, tiny_model


@pytest.fixture(params=[False, True], ids=["plain", "flip average"])
def model(request):
    scheme = get_scheme("mtfl").to_dict()
    return random_statistics(tiny_model(landmark_scheme=scheme, flip_average=request.param))


@pytest.fixture
def expected(model):
    with torch.no_grad():
        return model(pictures())


def test_it_compiles_without_a_break(model, expected):
    # The back end that needs no C++ compiler; the graph is the same for all.
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        outputs = compiled(pictures())
    torch.testing.assert_close(outputs.landmarks, expected.landmarks, atol=1e-5, rtol=0)
    torch.testing.assert_close(outputs.scores, expected.scores, atol=1e-5, rtol=0)


def test_it_trains_compiled(model):
    plain = copy.deepcopy(model).train()
    labels = torch.rand(2, 5, 2, generator=torch.Generator().manual_seed(2))
    plain(pictures(), labels=labels, output_landmarks=False).loss.backward()
    compiled = torch.compile(model.train(), backend="aot_eager")
    compiled(pictures(), labels=labels, output_landmarks=False).loss.backward()
    torch.testing.assert_close(model.heatmap_head.weight.grad, plain.heatmap_head.weight.grad, atol=1e-5, rtol=1e-4)
    assert model.heatmap_head.weight.grad.abs().max() > 0


def test_it_exports_with_any_number_of_faces(model):
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(model, (pictures(),), dynamic_shapes={"pixel_values": {0: batch}}, strict=False)
    many = pictures(5, seed=3)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(many).landmarks, model(many).landmarks, atol=1e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_finds_the_same_heatmaps(model, expected, dtype):
    model.half() if dtype == torch.float16 else model.to(dtype)
    assert {value.dtype for value in model.parameters()} == {dtype}
    with torch.no_grad():
        outputs = model(pictures().to(dtype))
    assert outputs.landmarks.dtype == torch.float32  # 16 bits would place them on a grid of whole pixels
    limit = 0.05 * expected.heatmaps.abs().max().item()
    torch.testing.assert_close(outputs.heatmaps.float(), expected.heatmaps, atol=limit, rtol=0)


def test_a_copy_is_whole_and_its_own(model, expected):
    twin = copy.deepcopy(model)
    with torch.no_grad():
        model.heatmap_head.weight.zero_()
        torch.testing.assert_close(twin(pictures()).heatmaps, expected.heatmaps, rtol=0, atol=0)
    frozen = [name for name, value in twin.named_parameters() if not value.requires_grad]
    assert frozen and all(name.startswith("autoencoder.") for name in frozen)


def test_outputs_and_models_survive_a_pickle(model, expected):
    again = pickle.loads(pickle.dumps(expected))
    assert type(again) is type(expected) and again.keys() == expected.keys()
    assert all(torch.equal(again[name], expected[name]) for name in expected)
    with torch.no_grad():
        outputs = pickle.loads(pickle.dumps(model))(pictures())
    assert torch.equal(outputs.landmarks, expected.landmarks)


def test_data_parallel_takes_and_returns_the_same(model, expected):
    """Without several GPUs it hands everything on; what it would put together again are outputs of batches."""
    with torch.no_grad():
        outputs = torch.nn.DataParallel(model)(pictures())
    assert torch.equal(outputs.landmarks, expected.landmarks)
    # By what torch.nn.parallel.gather does with a dictionary, whose tensors it joins on a GPU.
    joined = type(outputs)((name, torch.cat([outputs[name], outputs[name]])) for name in outputs)
    assert type(joined) is type(outputs) and joined.landmarks.shape == (4, 5, 2)


@pytest.mark.parametrize("device_map", ["auto", "cpu", {"": "cpu"}])
@pytest.mark.parametrize("form", ["whole", "delta"])
def test_accelerate_may_say_where_the_weights_go(tmp_path, device_map, form):
    autoencoder = save_autoencoder(tmp_path / "autoencoder")
    folder = save_landmarks(tmp_path / "whole")
    if form == "delta":
        detector = FabRecForLandmarkDetection.from_pretrained(folder)
        processor = AutoImageProcessor.from_pretrained(folder)
        save_delta(detector, processor, tmp_path / "delta", str(autoencoder), rank=8)
    plain = FabRecForLandmarkDetection.from_pretrained(tmp_path / form)
    mapped = FabRecForLandmarkDetection.from_pretrained(tmp_path / form, device_map=device_map)
    assert {value.device.type for value in mapped.parameters()} <= {"cpu", "cuda"}
    values = mapped.state_dict()
    assert all(torch.equal(values[name].cpu(), value) for name, value in plain.state_dict().items())


def test_code_for_vitpose_runs_with_the_name_changed(tmp_path):
    """The lines of transformers' documentation of ViTPose, but for the classes that load."""
    folder = save_landmarks(tmp_path)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8))
    person_boxes = np.array([[20.0, 10.0, 30.0, 24.0], [5.0, 5.0, 20.0, 20.0]])

    image_processor = AutoProcessor.from_pretrained(folder)
    model = AutoModelForKeypointDetection.from_pretrained(folder)
    inputs = image_processor(image, boxes=[person_boxes], return_tensors="pt").to(model.device)
    with torch.no_grad():
        outputs = model(**inputs)
    pose_results = image_processor.post_process_pose_estimation(outputs, boxes=[person_boxes])

    assert [len(image_results) for image_results in pose_results] == [2]
    ours = image_processor.post_process_keypoint_detection(outputs, inputs["crop_boxes"], num_images=1)[0]
    for pose, face, box in zip(pose_results[0], ours, person_boxes, strict=True):
        torch.testing.assert_close(pose["keypoints"], face["keypoints"])
        assert pose["labels"].tolist() == [0, 1, 2, 3, 4] and pose["bbox"].tolist() == box.tolist()
    # A threshold leaves points out, and the labels say which ones.
    limit = sorted(ours[0]["scores"].tolist())[2]
    strict = image_processor.post_process_pose_estimation(outputs, boxes=[person_boxes], threshold=limit)[0][0]
    kept = [index for index, score in enumerate(ours[0]["scores"].tolist()) if score > limit]
    assert strict["labels"].tolist() == kept and len(kept) == 2
    torch.testing.assert_close(strict["keypoints"], ours[0]["keypoints"][kept])
    with pytest.raises(ValueError, match="outputs hold 2 faces"):
        image_processor.post_process_pose_estimation(outputs, boxes=[person_boxes[:1]])
