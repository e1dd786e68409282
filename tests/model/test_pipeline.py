"""The pipeline `face-landmark-detection`: the same numbers as processor and model by hand, for every kind of input."""

import json
import math
import threading

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import pipeline

import fabrec_hf
from fabrec_hf import FabRecConfig, FabRecForLandmarkDetection, FabRecImageProcessor, FaceLandmarkPipeline, get_scheme
from fabrec_hf.checkpoints.names import resolve_checkpoint, weights_path
from fabrec_hf.errors import CheckpointError
from fabrec_hf.model import face_detection as detection_module
from fabrec_hf.model.face_detection import Detection


BOXES = [[40, 30, 60, 70], [100.5, 20.25, 50, 50]]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A tiny landmark model with its processor, saved."""
    folder = tmp_path_factory.mktemp("checkpoint")
    torch.manual_seed(0)
    config = FabRecConfig(
        image_size=64,
        widths=[8, 8, 8, 8],
        latent_size=8,
        num_landmarks=5,
        landmark_scheme=get_scheme("mtfl").to_dict(),
        heatmap_size=32,
        heatmap_sigma=1.75,
    )
    FabRecForLandmarkDetection(config).save_pretrained(folder)
    FabRecImageProcessor(size=64).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def detect(checkpoint):
    return pipeline("face-landmark-detection", model=str(checkpoint), device="cpu")


def picture(seed=0, width=200, height=120):
    pixels = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)


def by_hand(checkpoint, image, boxes):
    """Keypoints and scores from the processor's crops and the model, mapped back with plain arithmetic."""
    processor = FabRecImageProcessor.from_pretrained(checkpoint)
    model = FabRecForLandmarkDetection.from_pretrained(checkpoint)
    inputs = processor(image, boxes=boxes)
    with torch.no_grad():
        outputs = model(inputs["pixel_values"])
    crops = inputs["crop_boxes"].double()
    keypoints = crops[:, None, :2] + outputs.landmarks.double() * crops[:, None, 2:] - 0.5
    return keypoints.tolist(), outputs.scores.tolist()


def flat(faces):
    return [number for face in faces for point in face["keypoints"] for number in point]


def test_one_image_with_boxes(detect, checkpoint):
    assert isinstance(detect, FaceLandmarkPipeline)
    faces = detect(picture(), boxes=BOXES)
    keypoints, scores = by_hand(checkpoint, picture(), BOXES)
    assert [face["bbox"] for face in faces] == BOXES
    for face, expected_points, expected_scores in zip(faces, keypoints, scores, strict=True):
        assert set(face) == {"keypoints", "scores", "bbox", "is_face"} and face["is_face"] is False  # it is noise
        np.testing.assert_allclose(face["keypoints"], expected_points, atol=1e-3)
        np.testing.assert_allclose(face["scores"], expected_scores, atol=1e-6)
    assert flat(faces[:1]) != flat(faces[1:])
    for value in (faces[0]["keypoints"][0][0], faces[0]["scores"][0], faces[0]["bbox"][0]):
        assert type(value) is float
    assert json.loads(json.dumps(faces)) == faces


def test_one_box_needs_no_list_around_it(detect):
    assert detect(picture(), boxes=BOXES[0]) == detect(picture(), boxes=BOXES[:1])


def test_every_kind_of_image_gives_the_same_faces(detect, tmp_path):
    image = picture()
    image.save(tmp_path / "photo.png")
    expected = flat(detect(image, boxes=BOXES))
    array = np.asarray(image)
    kinds = [
        str(tmp_path / "photo.png"),
        tmp_path / "photo.png",
        array,
        torch.from_numpy(array.copy()).permute(2, 0, 1),
        array.astype(np.float32) / 255,
        {"image": image},
    ]
    for kind in kinds[:-1]:
        np.testing.assert_allclose(flat(detect(kind, boxes=BOXES)), expected, atol=1e-2)
    assert flat(detect({"image": image, "boxes": BOXES})) == expected


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_lists_of_images_with_any_number_of_faces(detect, batch_size):
    images = [picture(0), picture(1, 90, 150), picture(2), picture(3)]
    boxes = [BOXES, [[10, 20, 50, 60]], [], np.array(BOXES[:1])]
    results = detect(images, boxes=boxes, batch_size=batch_size)
    assert [len(faces) for faces in results] == [2, 1, 0, 1]
    for image, image_boxes, faces in zip(images, boxes, results, strict=True):
        alone = detect(image, boxes=image_boxes)
        np.testing.assert_allclose(flat(faces), flat(alone), atol=1e-2)
        assert [face["bbox"] for face in faces] == [face["bbox"] for face in alone]
    assert detect([images[0]], boxes=[BOXES]) == [detect(images[0], boxes=BOXES)]
    assert detect(tuple(images), boxes=boxes, batch_size=batch_size) == results


def test_threads_work_on_several_images_and_keep_their_order(checkpoint):
    meeting, threads = threading.Barrier(2, timeout=30), torch.get_num_threads()

    def find(rgb):
        meeting.wait()  # for another image in another thread
        return [Detection((40.0, 30.0, 60.0, 70.0 + rgb.shape[1] % 7), 0.9)] * (rgb.shape[1] % 3)

    images = [picture(seed, 200 + seed) for seed in range(8)]
    detect = pipeline("face-landmark-detection", model=str(checkpoint), device="cpu", face_detector=find)
    results = detect(images, num_workers=2)
    assert [len(faces) for faces in results] == [(200 + seed) % 3 for seed in range(8)]
    for image, faces in zip(images, results, strict=True):
        alone = detect(image, boxes=[face["bbox"] for face in faces])
        np.testing.assert_allclose(flat(faces), flat(alone), atol=1e-2)
    assert torch.get_num_threads() == threads


def test_threads_take_no_more_of_a_stream_than_they_need(detect):
    taken = []
    items = ({"image": picture(seed), "boxes": []} for seed in range(30) if not taken.append(seed))
    stream = iter(detect(items, num_workers=2))
    for count in range(5):
        assert next(stream) == [] and len(taken) <= count + 4  # 3 under way
    stream.close()
    assert len(taken) < 10


def test_generators_and_data_sets_stream(detect):
    images = [picture(0), picture(1)]
    expected = detect(images, boxes=[BOXES, BOXES[:1]])
    items = [{"image": images[0], "boxes": BOXES}, {"image": images[1], "boxes": BOXES[:1]}]

    class Items(torch.utils.data.Dataset):
        def __len__(self):
            return len(items)

        def __getitem__(self, index):
            return items[index]

    taken = []
    stream = detect(item for item in items if not taken.append(item))
    assert next(iter(stream)) == expected[0]
    assert len(taken) < 3 and list(stream) == expected[1:]
    assert list(detect(Items(), batch_size=1)) == expected
    with pytest.raises(ValueError, match="with its items"):
        detect((item for item in items), boxes=BOXES)


def test_no_images_and_no_faces(detect):
    assert detect([]) == []
    assert detect(picture(), boxes=[]) == []
    assert detect([picture()], boxes=[[]]) == [[]]


def test_points_under_the_threshold_become_nan(detect):
    plain = detect(picture(), boxes=BOXES)
    scores = sorted(score for face in plain for score in face["scores"])
    threshold = (scores[3] + scores[4]) / 2
    assert scores[3] < threshold < scores[4]
    missing = 0
    for face, before in zip(detect(picture(), boxes=BOXES, threshold=threshold), plain, strict=True):
        assert face["scores"] == before["scores"]
        for point, same, score in zip(face["keypoints"], before["keypoints"], face["scores"], strict=True):
            missing += score < threshold
            assert all(map(math.isnan, point)) if score < threshold else point == same
    assert missing == 4


def test_without_boxes_the_given_detector_finds_the_faces(detect, checkpoint):
    seen = []

    def detector(image):
        seen.append(image)
        return [Detection((40, 30, 60, 70), 0.9)] if image.shape[1] == 200 else []

    (given,) = detect(picture(), boxes=BOXES[:1])
    assert given.pop("is_face") is False  # which is asked of given boxes only
    expected = [given]
    assert detect(picture(), face_detector=detector) == expected
    np.testing.assert_array_equal(seen[0], np.asarray(picture()))
    assert seen[0].dtype == np.uint8
    # an image with boxes is not searched, one without is, and no face found is no face
    images = [picture(), picture(), picture(1, 90, 150)]
    results = detect(images, boxes=[None, BOXES, None], face_detector=detector)
    assert [len(faces) for faces in results] == [1, 2, 0] and len(seen) == 3
    always = pipeline("face-landmark-detection", model=str(checkpoint), device="cpu", face_detector=detector)
    assert always(picture()) == expected


def test_without_boxes_the_default_detector_finds_a_real_face(detect):
    photograph = "examples/astronaut.jpg"
    faces = detect(photograph)
    boxes = [list(found.box) for found in detection_module.default_face_detector()(Image.open(photograph))]
    assert len(faces) == len(boxes) >= 1
    np.testing.assert_allclose([face["bbox"] for face in faces], boxes)
    np.testing.assert_allclose(flat(faces), flat(detect(photograph, boxes=boxes)), atol=1e-3)


def test_without_boxes_and_detector_the_message_says_what_to_do(detect, monkeypatch):
    def absent():
        raise ImportError("Finding faces needs OpenCV: pip install opencv-python-headless.")

    monkeypatch.setattr(detection_module, "default_face_detector", absent)
    monkeypatch.setattr(detection_module, "can_find_faces", lambda: False)
    with pytest.raises(ValueError, match=r"No boxes were given.*pip install.*boxes=") as raised:
        detect(picture())
    assert "\n" not in str(raised.value)
    assert len(detect(picture(), boxes=BOXES)) == 2


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        ([[10, 10, 0, 20]], "width and height must be positive"),
        ([[10, 10, 20]], "a box is four numbers"),
        ([[math.nan, 0, 10, 10]], "must be finite"),
    ],
)
def test_bad_boxes_are_named(detect, boxes, message):
    with pytest.raises(ValueError, match=message):
        detect(picture(), boxes=boxes)


def test_boxes_must_match_the_images(detect):
    with pytest.raises(ValueError, match="for 2 image"):
        detect([picture(), picture()], boxes=[BOXES])


def test_a_misspelt_argument_is_refused(detect):
    with pytest.raises(TypeError, match="treshold"):
        detect(picture(), boxes=BOXES, treshold=0.5)


def test_a_missing_file_is_named(detect):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.jpg"):
        detect("nowhere.jpg", boxes=BOXES)


def test_half_precision_models_run(checkpoint, detect):
    half = pipeline("face-landmark-detection", model=str(checkpoint), device="cpu", dtype=torch.bfloat16)
    assert half.model.dtype == torch.bfloat16
    faces = half(picture(), boxes=BOXES)
    assert type(faces[0]["scores"][0]) is float
    for face, exact in zip(faces, detect(picture(), boxes=BOXES), strict=True):
        np.testing.assert_allclose(face["keypoints"], exact["keypoints"], atol=0.1)  # pixels, of boxes of 50 and 70
        np.testing.assert_allclose(face["scores"], exact["scores"], atol=1e-4)


def test_a_saved_pipeline_runs_by_its_task(detect, tmp_path):
    detect.save_pretrained(tmp_path)
    assert list(json.loads((tmp_path / "config.json").read_text())["custom_pipelines"]) == ["keypoint-detection"]
    assert (tmp_path / "pipeline_fabrec.py").is_file()
    again = pipeline("face-landmark-detection", model=str(tmp_path), device="cpu")
    assert again(picture(), boxes=BOXES) == detect(picture(), boxes=BOXES)


# Names of checkpoints.


@pytest.fixture
def weights(tmp_path, monkeypatch):
    folder = tmp_path / "weights" / "3fabrec-test"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (tmp_path / "weights" / "empty").mkdir()
    monkeypatch.setattr("fabrec_hf.model.embedded_fabrec.WEIGHTS", tmp_path / "weights")
    return folder


def test_embedded_checkpoints_by_name(weights):
    assert weights_path("3fabrec-test") == weights
    assert resolve_checkpoint("3fabrec-test") == str(weights)
    for name in ("empty", "3fabrec", "../weights/3fabrec-test", ""):
        with pytest.raises(CheckpointError, match='there is "3fabrec-test"') as raised:
            weights_path(name)
        assert "\n" not in str(raised.value)


def test_folders_and_repositories(weights, tmp_path):
    assert resolve_checkpoint(weights) == resolve_checkpoint(str(weights)) == str(weights)
    assert resolve_checkpoint("owner/name") == "owner/name"
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        resolve_checkpoint(tmp_path)
    for name in ("nothing", "./nothing", "a/b/c", "/nowhere", tmp_path / "nothing", ""):
        with pytest.raises(CheckpointError, match="give a folder") as raised:
            resolve_checkpoint(name)
        assert "\n" not in str(raised.value)


def test_package_exports_the_names():
    assert fabrec_hf.weights_path is weights_path
    with pytest.raises(ValueError, match="comes with the package"):
        fabrec_hf.weights_path("nothing")
