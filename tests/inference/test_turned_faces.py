"""Turned faces from picture to points: by the finder, the pipeline, the command and the tracker."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import pipeline

import fabrec_hf
from fabrec_hf.cli import main
from fabrec_hf.inference.drawing import draw_landmarks
from fabrec_hf.inference.landmark_finder import LandmarkFinder
from fabrec_hf.inference.tracking import FaceTracker
from fabrec_hf.model.face_detection import Detection, YuNetFaceDetector
from fabrec_hf.model.second_look import FaceBox, SecondLook
from fabrec_hf.model.turned_crops import landmarks_to_turned_crop, turn_points


EXAMPLES = Path(__file__).parents[2] / "examples"
EYES = slice(36, 48)


@pytest.fixture(scope="module")
def finder():
    return LandmarkFinder("3fabrec-300w", "cpu")


@pytest.fixture(scope="module")
def upright(finder):
    """A square about the astronaut's face, and the landmarks that are found in it."""
    picture = Image.open(EXAMPLES / "astronaut.jpg").convert("RGB").crop((110, 20, 350, 260))
    (face,) = finder.find([picture], [finder.detect(picture)])[0]
    assert "roll" not in face
    return picture, face


def turned(picture, degrees):
    return picture.rotate(-degrees, Image.Resampling.BICUBIC, fillcolor=(90, 110, 90))


def error(face, upright, degrees):
    """Mean distance from the upright landmarks, turned, as a share of the distance of the outer eye corners."""
    truth = upright[1]["keypoints"].double().numpy()
    expected = turn_points(truth, np.array([119.5, 119.5]), degrees)
    found = np.asarray(face["keypoints"], dtype=float)
    return np.linalg.norm(found - expected, axis=1).mean() / np.linalg.norm(truth[36] - truth[45])


def box_about(upright, degrees):
    """The box about the turned points, which does not tell how the face is turned."""
    points = turn_points(upright[1]["keypoints"].double().numpy(), np.array([119.5, 119.5]), degrees)
    return [*points.min(0), *np.ptp(points, axis=0)]


@pytest.mark.parametrize("degrees", [30, 60, 90, 180, -45, -120])
@pytest.mark.parametrize("way", ["searched", "given"])
def test_landmarks_turn_with_the_picture(finder, upright, way, degrees):
    picture = turned(upright[0], degrees)
    if way == "searched":
        boxes = finder.detect(picture)
    else:
        boxes = [box_about(upright, degrees)]
    (face,) = finder.find([picture], [boxes])[0]
    assert error(face, upright, degrees) < 0.05
    assert abs((float(face["roll"]) - degrees + 180) % 360 - 180) < 20
    assert face["scores"].mean() > upright[1]["scores"].mean() - 0.1
    np.testing.assert_allclose(face["bbox"], boxes[0])


def test_the_pipeline_finds_the_same(finder, upright):
    detect = pipeline("face-landmark-detection", model=str(fabrec_hf.weights_path("3fabrec-300w")), device="cpu")
    pictures = [turned(upright[0], 90), upright[0], Image.new("RGB", (240, 240), (90, 110, 90))]
    found = detect(pictures, batch_size=3)
    assert [len(faces) for faces in found] == [1, 1, 0]
    (expected,) = finder.find(pictures[:1], [finder.detect(pictures[0])])[0]
    np.testing.assert_allclose(found[0][0]["keypoints"], expected["keypoints"], atol=0.05)
    assert found[0][0]["roll"] == pytest.approx(float(expected["roll"]), abs=0.1) and "roll" not in found[1][0]
    (given,) = detect(pictures[0], boxes=[found[0][0]["bbox"]])
    assert error(given, upright, 90) < 0.05


def test_the_command_turns_faces_and_tells_boxes_without_one(upright, tmp_path, capsys):
    turned(upright[0], 90).save(tmp_path / "lying.png")
    assert main(["detect", str(tmp_path / "lying.png"), "--json", "--output", str(tmp_path / "out")]) == 0
    streams = capsys.readouterr()
    (record,) = json.loads(streams.out)
    assert streams.err == "" and record == json.loads((tmp_path / "out/lying.json").read_text())
    (face,) = record["faces"]
    assert 70 < face["roll"] < 110 and error(face, upright, 90) < 0.05
    assert main(["detect", str(tmp_path / "lying.png"), "--json", "--boxes", "5,190,45,45"]) == 0
    streams = capsys.readouterr()
    assert json.loads(streams.out)[0]["faces"][0]["is_face"] is False
    assert streams.err == ""
    assert main(["detect", str(tmp_path / "lying.png"), "--boxes", "5,190,45,45"]) == 0
    assert capsys.readouterr().out.endswith("; box 1 shows no face, its landmarks mean nothing\n")


def test_a_face_that_turns_in_a_video_is_followed(finder, upright):
    looks = []

    def find(image, boxes):
        looks.append([getattr(box, "roll", None) for box in boxes])
        return finder.find([image], [boxes])[0]

    tracker = FaceTracker(find, finder.detect, detect_every=50, smoothing=None)
    for index in range(13):
        frame = np.asarray(turned(upright[0], 12 * index))
        (face,) = tracker(frame, index, index / 25)
        assert face.id == 1
        assert error({"keypoints": face.raw_keypoints}, upright, 12 * index) < 0.07
        assert face.roll == 0 or abs(face.roll - 12 * index) < 25
    assert face.roll > 100
    assert looks[-1][0] > 90  # the crop of the next frame is turned beforehand


@pytest.mark.parametrize("degrees", [45, 90, 180])
def test_a_turned_face_of_a_given_box_is_followed_in_a_video(finder, upright, degrees):
    box, frame = box_about(upright, degrees), np.asarray(turned(upright[0], degrees))
    tracker = FaceTracker(
        lambda image, boxes: finder.find([image], [boxes])[0], finder.detect, smoothing=None, boxes=[box]
    )
    for index in range(4):
        (face,) = tracker(frame, index, index / 25)
        assert face.id == 1 and abs((face.roll - degrees + 180) % 360 - 180) < 20
        assert error({"keypoints": face.keypoints}, upright, degrees) < 0.07


def test_turned_boxes_are_drawn_turned():
    face = {"keypoints": [[50, 50]], "scores": [1.0], "bbox": [20, 40, 60, 20], "roll": 90.0}
    drawn = np.asarray(draw_landmarks(Image.new("RGB", (100, 100)), [face]))
    # Turned by a quarter about (50, 50), the box spans 40 to 60 and 20 to 80.
    assert drawn[19:22, 50].max() > 100 and drawn[50, 59:62].max() > 100
    assert drawn[50, 15:35].max() == 0 and drawn[50, 65:85].max() == 0


# The second look by itself: a model that sees a face as it is, but a face that is turned far in its crop not at all.

SHAPE = np.array([[-20.0, -10.0], [20.0, -10.0], [0.0, 15.0]])


class Scene:
    """A face in the middle of a picture, a processor and a model that know where it is."""

    def __init__(self, roll, blind_from=50.0):
        self.roll, self.blind_from = roll, blind_from
        self.truth = turn_points(SHAPE, [0, 0], roll) + 50.0
        self.looks, self.rolls = 0, []

    def __call__(self, images, boxes, rolls=None):
        crops = np.concatenate(boxes)
        self.rolls.append([0.0] * len(crops) if rolls is None else [roll for entry in rolls for roll in entry])
        indices = np.repeat(np.arange(len(images)), [len(entry) for entry in boxes])
        data = {"pixel_values": torch.zeros(len(crops), 3, 8, 8), "crop_boxes": torch.from_numpy(crops)}
        data |= {"face_boxes": torch.from_numpy(crops), "image_indices": torch.from_numpy(indices)}
        return data if rolls is None else data | {"rolls": torch.tensor(self.rolls[-1], dtype=torch.float64)}

    def run(self, pixel_values):
        landmarks, scores = [], []
        for roll in self.rolls[-1]:
            off = abs((self.roll - roll + 180) % 360 - 180)
            sees = off < self.blind_from
            points = self.truth if sees else turn_points(SHAPE, [0, 0], roll) + 50.0
            landmarks.append(landmarks_to_turned_crop(points, [0.0, 0.0, 101.0, 101.0], roll))
            scores.append([0.9 - off / 200 if sees else 0.3] * 3)
        return torch.tensor(np.array(landmarks)), torch.tensor(scores)

    def boxes_from_detections(self, boxes, rolls):
        return boxes

    def look(self, image, box):
        self.looks += 1
        return Detection((0.0, 0.0, 101.0, 101.0), 0.9, self.roll - 8)

    def read(self, box, is_calibrated=True, look=True):
        config = SimpleNamespace(landmark_scheme={"flip_pairs": [(0, 1)]}, calibration={"tolerance": 5.0})
        config.calibration = config.calibration if is_calibrated else None
        second_look = SecondLook(self.run, self, config, self.look if look else None)
        return second_look(["picture"], [[box]])


GIVEN = (0.0, 0.0, 101.0, 101.0)


@pytest.mark.parametrize(
    ("roll", "box", "rolls", "looks"),
    [
        (10.0, GIVEN, [0], 0),  # about upright, and the model is sure
        (10.0, FaceBox(GIVEN, 0.0), [0], 0),
        (170.0, GIVEN, [0, 162], 1),  # not seen at first; eight degrees off is good enough
        (35.0, GIVEN, [0, 27], 1),
        (35.0, FaceBox(GIVEN, 0.0), [0, 35], 0),  # the landmarks tell
        (120.0, FaceBox(GIVEN, 95.0), [95, 120], 0),  # further off than they should be
        (120.0, FaceBox(GIVEN, 114.0), [114], 0),
        (-175.0, FaceBox(GIVEN, 170.0), [170, -175], 0),  # across the half turn
    ],
)
def test_which_faces_are_read_again(roll, box, rolls, looks):
    scene = Scene(roll)
    reading = scene.read(box)
    assert [entry for (entry,) in scene.rolls] == pytest.approx(rolls)
    assert scene.looks == looks and reading.faceless == frozenset()
    assert reading.geometry["rolls"].tolist() == pytest.approx(rolls[-1:])


def test_uncalibrated_scores_do_not_vouch_for_a_face():
    scene = Scene(10.0)
    scene.read(GIVEN, is_calibrated=False)
    assert scene.looks == 1 and len(scene.rolls) == 1


def test_a_second_reading_that_is_worse_is_dropped():
    scene = Scene(170.0)
    scene.look = lambda image, box: Detection(GIVEN, 0.9, -60.0)
    scores = iter((0.4, 0.2))
    run = scene.run
    scene.run = lambda pixel_values: (run(pixel_values)[0], torch.full((1, 3), next(scores)))
    reading = scene.read(GIVEN)
    assert [entry for (entry,) in scene.rolls] == [0, -60]
    assert reading.geometry["rolls"].tolist() == [0] and reading.scores.tolist() == [[pytest.approx(0.4)] * 3]


def test_boxes_without_a_face_and_without_a_detector():
    for found in (None, Detection(GIVEN, 0.45, 90.0)):
        scene = Scene(170.0)
        scene.look = lambda image, box, found=found: found
        reading = scene.read(GIVEN)
        assert reading.faceless == {0} and len(scene.rolls) == 1
    assert Scene(170.0).read(GIVEN, look=False).faceless == frozenset()
    # Without a detector the landmarks are followed as far as they lead.
    assert Scene(40.0).read(GIVEN, look=False).geometry["rolls"].tolist() == pytest.approx([40.0])


@pytest.mark.parametrize("calibrated", [True, False])
def test_a_calibrated_detector_vouches_for_faces_in_finder_and_pipeline(calibrated, tmp_path, monkeypatch):
    """The embedded detector has an error model and is sure of an upright photograph: nobody looks a second time."""
    folder = Path(shutil.copytree(fabrec_hf.weights_path("3fabrec-300w"), tmp_path / "copy"))
    config = json.loads((folder / "config.json").read_text())
    assert config["error_model"] and not config["score_calibration"]
    if not calibrated:
        (folder / "config.json").write_text(json.dumps(config | {"error_model": None}))
    looks = []
    monkeypatch.setattr(YuNetFaceDetector, "look_at", lambda self, image, box: looks.append(box))
    photograph = Image.open(EXAMPLES / "astronaut.jpg").convert("RGB")
    finder = LandmarkFinder(str(folder), "cpu")
    (box,) = finder.detect(photograph)
    finder.find([photograph], [[tuple(box)]])
    assert len(looks) == (0 if calibrated else 1)
    pipeline("face-landmark-detection", model=str(folder), device="cpu")(photograph, boxes=[tuple(box)])
    assert len(looks) == (0 if calibrated else 2)
