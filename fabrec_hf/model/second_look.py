"""Landmarks of faces at any turn: a first look at every face as it is given, a second one upright where that pays."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from .turned_crops import TURNED_FROM, landmarks_from_turned_crop, roll_of_landmarks, wrapped


# A crop that was turned with its face is turned once more where the landmarks say that it is further off than this.
SETTLED = 10.0
# A calibrated detector that is as sure as this of a face in its given box sees it about upright. So sure is
# `3fabrec-300w` of 97 % of the 99 faces of 300-W that it was validated on, and of 1 % of them at 45 degrees.
SURE_OF_FACE = 0.6
# What the face detector scores lower than this in a given box, however it is turned, is no face.
LOWEST_SCORE = 0.5
# Second looks at a face: one for the turn that the detector sees, one for what the landmarks add to it.
MOST_LOOKS = 2


class FaceBox(tuple):
    """A box (x, y, width, height) that knows by how much it is turned about its middle.

    Attributes:
        roll: Degrees clockwise; 0 for a face that is known to be about upright.
    """

    roll: float

    def __new__(cls, box: Any, roll: float = 0.0) -> "FaceBox":
        """Make a box of four numbers and a roll."""
        made = super().__new__(cls, (float(value) for value in box))
        made.roll = float(roll)
        return made


class Reading(NamedTuple):
    """What was read of N faces.

    Attributes:
        landmarks: (N, L, 2) in [0, 1] of the crops.
        scores: (N, L).
        geometry: What `post_process_keypoint_detection` takes beside the outputs, by name.
        faceless: The rows of given boxes in which there is no face.
    """

    landmarks: torch.Tensor
    scores: torch.Tensor
    geometry: dict[str, Any]
    faceless: frozenset[int] = frozenset()

    @property
    def points(self) -> np.ndarray:
        """The landmarks as (N, L, 2) float64 in pixels of the pictures, pixel centers at integers."""
        rolls = np.asarray(self.geometry["rolls"])
        crops = np.asarray(self.geometry["crop_boxes"])
        return landmarks_from_turned_crop(self.landmarks.double().numpy(), crops, rolls if rolls.any() else None)


class SecondLook:
    """Reads landmarks, and reads those of turned faces again in crops that are turned with them.

    Args:
        run: `run(pixel_values)` returns landmarks (N, L, 2) and scores (N, L) on the CPU.
        processor: The image processor.
        config: Of the detector: its flip pairs tell how a face is turned, and calibrated scores whether it is upright.
        look: `look(image, box)` returns a `Detection` of the face about a box, or None where it sees none; what is
            needed for faces of given boxes that are turned far, and for boxes without a face. None where there is no
            face detector.
    """

    def __init__(
        self,
        run: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]],
        processor: Any,
        config: Any,
        look: Callable[[Any, Any], Any] | None = None,
    ):
        self._run, self._processor = run, processor
        self._flip_pairs = (config.landmark_scheme or {}).get("flip_pairs", ())
        # Heights of heatmaps say nothing of whether a face is upright.
        self._sure = SURE_OF_FACE if config.calibration else np.inf
        self._look = look

    def __call__(self, images: Sequence[Any], boxes: Sequence[Sequence[Any]]) -> Reading:
        """Read the faces of pictures.

        Args:
            images: Pictures, in any form that the image processor takes.
            boxes: The faces of each of them: a `FaceBox` where it is known how a face is turned, any other box where
                it is not.
        """
        reading = read_once(self._run, self._processor, images, boxes)
        is_known = [hasattr(box, "roll") for entry in boxes for box in entry]
        for _ in range(MOST_LOOKS):
            wanted, faceless = self._wanted(images, reading, is_known)
            reading = reading._replace(faceless=reading.faceless | faceless)
            if not wanted:
                break
            reading = self._read_again(images, reading, wanted)
            is_known = [True] * len(is_known)
        return reading

    def _wanted(
        self, images: Sequence[Any], reading: Reading, is_known: Sequence[bool]
    ) -> tuple[dict[int, FaceBox], set[int]]:
        """Return the faces to read again, by their row, and how they are turned; and the rows without a face."""
        geometry = {name: np.asarray(value) for name, value in reading.geometry.items()}
        rolls, boxes = geometry["rolls"], geometry["face_boxes"]
        # Half a turn more or less is the same to the landmarks: the nearer one is meant.
        seen = rolls + (roll_of_landmarks(reading.points, self._flip_pairs) - rolls + 90.0) % 180.0 - 90.0
        wanted, faceless = {}, set()
        for row, (roll, known, score) in enumerate(zip(rolls, is_known, reading.scores.mean(1).tolist(), strict=True)):
            off = abs(seen[row] - roll)
            box = FaceBox(boxes[row], wrapped(seen[row]))
            if known:
                if off > (SETTLED if roll else TURNED_FROM):
                    wanted[row] = box
            elif off > TURNED_FROM or score < self._sure:
                face = self._look(images[geometry["image_indices"][row]], boxes[row]) if self._look else None
                if face is not None:
                    (moved,) = self._processor.boxes_from_detections([face.box], [face.roll])
                    box = FaceBox(moved, face.roll)
                if self._look and (face is None or face.score < LOWEST_SCORE):
                    faceless.add(row)
                elif roll_of_crop(box.roll):
                    wanted[row] = box
        return wanted, faceless

    def _read_again(self, images: Sequence[Any], reading: Reading, wanted: dict[int, FaceBox]) -> Reading:
        """Read faces in other crops, and keep of each what scores higher."""
        rows = list(wanted)
        pictures = np.asarray(reading.geometry["image_indices"])[rows]
        faces, rolls = [[box] for box in wanted.values()], [[box.roll] for box in wanted.values()]
        again = read_once(self._run, self._processor, [images[index] for index in pictures], faces, rolls)
        better = (again.scores.mean(1) >= reading.scores.mean(1)[rows]).numpy()
        rows = np.array(rows)[better]
        landmarks, scores = reading.landmarks.clone(), reading.scores.clone()
        landmarks[rows], scores[rows] = again.landmarks[better], again.scores[better]
        geometry = {name: torch.as_tensor(value).clone() for name, value in reading.geometry.items()}
        for name in ("crop_boxes", "rolls"):
            geometry[name][rows] = torch.as_tensor(again.geometry[name])[better]
        return reading._replace(landmarks=landmarks, scores=scores, geometry=geometry)


def read_once(
    run: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]],
    processor: Any,
    images: Sequence[Any],
    boxes: Sequence[Sequence[Any]],
    rolls: list[list[float]] | None = None,
) -> Reading:
    """Read faces in crops that are turned as told, or as their boxes say; other arguments as those of `SecondLook`."""
    tables = [np.reshape([tuple(box) for box in entry], (-1, 4)) for entry in boxes]
    if rolls is None:
        rolls = [[roll_of_crop(getattr(box, "roll", None)) for box in entry] for entry in boxes]
    given = {"rolls": rolls} if any(roll for entry in rolls for roll in entry) else {}
    inputs = processor(list(images), boxes=tables, **given)
    landmarks, scores = run(inputs.pop("pixel_values"))
    geometry = dict(inputs)
    geometry.setdefault("rolls", torch.zeros(len(landmarks), dtype=torch.float64))
    return Reading(landmarks, scores, geometry)


def boxes_of(found: Sequence[Any], processor: Any) -> list[Any]:
    """Return the boxes of `Detection`s in the convention of the model, turned with the faces where that is known."""
    rolls = [getattr(face, "roll", None) for face in found]
    boxes = processor.boxes_from_detections([face.box for face in found], [roll or 0.0 for roll in rolls])
    return [box if roll is None else FaceBox(box, roll) for box, roll in zip(boxes, rolls, strict=True)]


def mark_faceless(results: list[list[dict[str, Any]]], faceless: frozenset[int]) -> list[list[dict[str, Any]]]:
    """Add `is_face`, false, to the results of the rows of boxes in which there is no face."""
    for row, face in enumerate(face for faces in results for face in faces):
        if row in faceless:
            face["is_face"] = torch.tensor(False)
    return results


def roll_of_crop(roll: float | None) -> float:
    """Return by how much the crop of a face is turned: not at all where the face is about upright."""
    return float(roll) if roll is not None and abs(roll) > TURNED_FROM else 0.0


__all__ = ["FaceBox", "Reading", "SecondLook", "boxes_of", "mark_faceless", "read_once", "roll_of_crop"]
