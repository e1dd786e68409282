"""Tracking on simulated faces whose true places are known: ids, losses, drift, and when the detector is asked."""

import numpy as np
import pytest

from fabrec_hf.inference.tracking import FaceTracker, follow_box


SHAPE = np.array([[0.3, 0.35], [0.7, 0.35], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]])
IMAGE = np.zeros((240, 320, 3), np.uint8)


class Scene:
    """Faces at known boxes; a model that sees what is in its crop, and a detector that counts its looks."""

    def __init__(self, noise=0.0):
        self.boxes: dict[str, np.ndarray] = {}
        self.hidden: set[str] = set()
        self.looks = 0
        self.random, self.noise = np.random.default_rng(0), noise

    def detect(self, image):
        self.looks += 1
        return [box for name, box in self.boxes.items() if name not in self.hidden]

    def find(self, image, boxes):
        faces = []
        for box in map(np.asarray, boxes):
            centers = {name: face[:2] + face[2:] / 2 for name, face in self.boxes.items() if name not in self.hidden}
            near = [name for name, at in centers.items() if (np.abs(at - box[:2] - box[2:] / 2) < box[2:] / 2).all()]
            seen = self.boxes[near[0]] if near else box
            points = seen[:2] + SHAPE * seen[2:] + self.random.normal(0, self.noise, SHAPE.shape)
            faces.append({"keypoints": points, "scores": np.full(5, 0.8 if near else 0.4)})
        return faces

    def truth(self, name):
        return self.boxes[name][:2] + SHAPE * self.boxes[name][2:]


def box(x, y, side=50.0):
    return np.array([x, y, side, side], dtype=float)


def run(scene, tracker, frames, move=lambda index: None):
    history = []
    for index in range(frames):
        move(index)
        history.append(tracker(IMAGE, index, index / 25))
    return history


def test_following_a_box_is_a_similarity_of_the_points():
    random = np.random.default_rng(1)
    then = random.normal(100, 20, (12, 2))
    start = np.array([70.0, 60.0, 50.0, 40.0])
    np.testing.assert_allclose(follow_box(start, then, then), start)
    np.testing.assert_allclose(follow_box(start, then, then + [7, -3]), start + [7, -3, 0, 0])
    # Points have their centers at integers: doubling about (0, 0) of the points takes the edge -0.5 to itself.
    doubled = follow_box(start, then, 2 * (then + 0.5) - 0.5)
    np.testing.assert_allclose(doubled, 2 * start)
    # A turn by 30 degrees turns the center of the box about the points' mean, and keeps its size.
    angle = np.radians(30)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    mean = then.mean(axis=0)
    turned = follow_box(start, then, (then - mean) @ turn.T + mean)
    center = turn @ (start[:2] + start[2:] / 2 - 0.5 - mean) + mean + 0.5
    np.testing.assert_allclose(turned, [*(center - start[2:] / 2), *start[2:]])
    np.testing.assert_allclose(follow_box(start, then[:1], then[:1] + 4), start + [4, 4, 0, 0])


def test_a_moving_face_keeps_its_id_and_the_detector_rests():
    scene = Scene(noise=0.3)
    scene.boxes["a"] = box(20, 40)
    tracker = FaceTracker(scene.find, scene.detect, detect_every=10, smoothing=None)

    def move(index):
        scene.boxes["a"] = box(20 + 4 * index, 40 + index, 50 + 0.5 * index)

    history = run(scene, tracker, 41, move)
    assert [[face.id for face in faces] for faces in history] == [[1]] * 41
    assert scene.looks == 5  # frames 0, 10, 20, 30, 40
    np.testing.assert_allclose(history[-1][0].keypoints, scene.truth("a"), atol=1.5)
    # The crop was made from the frame before, so it trails by a step; its size has followed.
    assert abs(history[-1][0].box[2] - scene.boxes["a"][2]) < 2


def test_several_faces_come_and_go_with_stable_ids():
    scene = Scene()
    scene.boxes = {"a": box(20, 20), "b": box(150, 100)}
    tracker = FaceTracker(scene.find, scene.detect, detect_every=5)

    def move(index):
        if index == 7:
            scene.boxes["c"] = box(250, 20)
        if index == 20:
            del scene.boxes["a"]

    history = run(scene, tracker, 40, move)
    ids = [[face.id for face in faces] for faces in history]
    assert ids[0] == ids[9] == [1, 2]
    assert ids[10] == ids[19] == [1, 2, 3]  # seen at the next look of the detector
    assert ids[20] == ids[39] == [2, 3]  # its score falls at once
    for faces in history[10:]:
        np.testing.assert_allclose(next(face for face in faces if face.id == 3).raw_keypoints, scene.truth("c"))


def test_a_hidden_face_gets_its_id_back_and_a_far_one_a_new_one():
    for shift, expected in ((20, 1), (150, 2)):
        scene = Scene()
        scene.boxes["a"] = box(20, 40)
        tracker = FaceTracker(scene.find, scene.detect, detect_every=8)

        def move(index, scene=scene, shift=shift):
            scene.hidden = {"a"} if 10 <= index < 20 else set()
            if index == 20:
                scene.boxes["a"] = box(20 + shift, 40)

        history = run(scene, tracker, 30, move)
        assert all(not faces for faces in history[10:20])
        found = [faces[0].id for faces in history if faces]
        assert found[0] == 1 and found[-1] == expected
        # Searched for four times as often as usual: found again within two frames.
        assert history[22]
        # Nothing of the old place is left in the smoothed points.
        np.testing.assert_allclose(history[-1][0].keypoints, scene.truth("a"), atol=1e-6)


def test_a_lost_face_is_forgotten_after_two_seconds():
    scene = Scene()
    scene.boxes["a"] = box(20, 40)
    tracker = FaceTracker(scene.find, scene.detect, detect_every=10)

    def move(index):
        scene.hidden = {"a"} if 5 <= index < 65 else set()

    history = run(scene, tracker, 75, move)
    assert history[-1][0].id == 2


def test_a_false_track_ends_when_the_detector_does_not_confirm_it():
    scene = Scene()
    scene.boxes["a"] = box(20, 40)
    tracker = FaceTracker(scene.find, lambda image: scene.detect(image) if scene.looks == 0 else [], detect_every=5)
    scene.looks = 0
    history = run(scene, tracker, 12)
    assert [len(faces) for faces in history] == [1] * 10 + [0, 0]


def test_two_tracks_on_one_face_become_one():
    scene = Scene()
    scene.boxes = {"a": box(60, 60), "b": box(140, 60)}
    tracker = FaceTracker(scene.find, scene.detect, detect_every=50)

    def move(index):
        if index > 2:
            scene.boxes["b"] = box(max(70, 140 - 8 * index), 60)
        if index == 12:
            del scene.boxes["b"]

    history = run(scene, tracker, 20, move)
    assert len(history[-1]) == 1


def test_drift_is_corrected_at_the_next_look():
    """The model's points shrink a little in each frame, and the crop with them, until the detector looks again."""
    scene = Scene()
    scene.boxes["a"] = box(100, 80)

    calls = []

    def find(image, boxes):
        calls.append(image)
        shrink = 1.0 if len(calls) == 1 else 0.97
        shape = (SHAPE - 0.5) * shrink
        return [
            {"keypoints": b[:2] + b[2:] / 2 + shape * b[2:], "scores": np.full(5, 0.8)} for b in map(np.asarray, boxes)
        ]

    tracker = FaceTracker(find, scene.detect, detect_every=10, smoothing=None)
    history = run(scene, tracker, 11)
    assert history[9][0].box[2] < 0.8 * 50
    assert history[10][0].box[2] == 50


def test_given_boxes_are_followed_without_a_detector():
    scene = Scene()
    scene.boxes = {"a": box(20, 20), "b": box(150, 100)}
    tracker = FaceTracker(scene.find, None, boxes=[[150, 100, 50, 50]])

    def move(index):
        scene.boxes["b"] = box(150 - index, 100)

    history = run(scene, tracker, 20, move)
    assert scene.looks == 0
    assert [[face.id for face in faces] for faces in history] == [[1]] * 20
    np.testing.assert_allclose(history[-1][0].raw_keypoints, scene.truth("b"))


def test_a_change_of_the_frame_size_starts_anew():
    scene = Scene()
    scene.boxes["a"] = box(20, 40)
    tracker = FaceTracker(scene.find, scene.detect, detect_every=100)
    assert tracker(IMAGE, 0, 0.0)[0].id == 1
    scene.boxes["a"] = box(10, 20, 25)
    faces = [tracker(IMAGE[::2, ::2], 1 + index, 0.04 * (index + 1)) for index in range(30)][-1]
    np.testing.assert_allclose(faces[0].raw_keypoints, scene.truth("a"))


def test_tracks_that_leave_the_picture_end():
    scene = Scene()
    scene.boxes["a"] = box(200, 40)
    tracker = FaceTracker(scene.find, scene.detect, detect_every=1000)

    def move(index):
        scene.boxes["a"] = box(200 + 8 * index, 40)

    history = run(scene, tracker, 30, move)
    assert history[9] and not history[-1]


def test_misuse():
    scene = Scene()
    with pytest.raises(ValueError, match="at least 1"):
        FaceTracker(scene.find, scene.detect, detect_every=0)
    with pytest.raises(ValueError, match="Give a detector"):
        FaceTracker(scene.find, None)
