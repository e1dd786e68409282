"""Measure what is found of faces that are turned, cut off, small or covered, and of boxes that hold no face.

    python training/benchmarks/benchmark_hard_faces.py --data 300w --background street.jpg --output_dir runs/hard

The faces are those of the training split that `train_landmarks.py` leaves for validation: nothing is tuned on the test
split, and a model of that script has not learned from them. Errors are means over all points, seen or not, in percent
of the distance that the scheme normalizes by. `--background` names photographs without people.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm


sys.path.insert(0, str(Path(__file__).parents[1]))  # the training scripts

from training_utils import parse_arguments, run_main  # noqa: E402

from fabrec_hf.common.output_folder import write_files  # noqa: E402
from fabrec_hf.data import load_faces, validation_split  # noqa: E402
from fabrec_hf.inference.dataset_prediction import checkpoint_scheme  # noqa: E402
from fabrec_hf.inference.landmark_finder import LandmarkFinder  # noqa: E402
from fabrec_hf.metrics import normalized_mean_error  # noqa: E402
from fabrec_hf.model.geometry import box_overlap  # noqa: E402
from fabrec_hf.model.turned_crops import turn_points  # noqa: E402


TURNS = (0, 15, 30, 45, 60, 90, 120, 150, 180, -45, -90)
SIDES = ("left", "right", "upper", "lower")
FOUND_IOU = 0.4
VALIDATION_SHARE = 0.05  # as in the configurations of the embedded models
GRAY = 128


@dataclass
class BenchmarkArguments:
    """What to measure."""

    data: str = field(metadata={"help": "Annotated faces; those for validation are taken out of the training split."})
    output_dir: str = field(metadata={"help": "Folder for results.json."})
    model: str = field(default="3fabrec-300w", metadata={"help": "Landmark checkpoint."})
    background: list[str] = field(default_factory=list, metadata={"help": "Photographs without people."})
    faces: int = field(default=40, metadata={"help": "Every other of the first faces for validation, so many."})
    cut: float = field(default=0.3, metadata={"help": "The share of a face that lies beyond the border."})
    small: int = field(default=24, metadata={"help": "Height of the small faces in pixels."})
    boxes: int = field(default=80, metadata={"help": "Boxes without a face."})


@dataclass
class Shown:
    """A picture with the true points of the face in it, (L, 2) in pixels with centers at integers."""

    image: Image.Image
    points: np.ndarray

    @property
    def box(self) -> np.ndarray:
        """The tight box of the points."""
        low = self.points.min(0)
        return np.concatenate([low + 0.5, self.points.max(0) - low])


def main(arguments: BenchmarkArguments) -> None:
    """Measure, print and write the results."""
    finder = LandmarkFinder(arguments.model, device="cpu")
    faces = list(_validation_faces(arguments))
    judge = _Judge(finder, faces[0].points.shape[0])
    results: dict = {"faces": len(faces), "turned": {}, "cut": {}}
    for degrees in tqdm(TURNS, desc="Turned", disable=None):
        results["turned"][degrees] = judge([_turned(face, degrees) for face in faces])
    for side in tqdm(SIDES, desc="Cut", disable=None):
        results["cut"][side] = judge([_cut(face, side, arguments.cut) for face in faces])
    results["covered"] = {"no face": judge.faceless([_covered(face) for face in faces]), "of": len(faces)}
    results["small"] = _small_faces(finder, faces, arguments.small)
    if arguments.background:
        boxes = list(_background(arguments))
        results["background"] = {"no face": judge.faceless(boxes), "of": len(boxes)}
    print(json.dumps(results, indent=2))
    write_files(Path(arguments.output_dir), {"results.json": json.dumps(results, indent=2).encode()})


def _validation_faces(arguments: BenchmarkArguments) -> Iterator[Shown]:
    columns = ("image", "landmarks", "box", "picture")
    _, kept = validation_split(load_faces([arguments.data], "train", columns=columns), VALIDATION_SHARE)
    for index in range(0, len(kept), 2)[: arguments.faces]:
        row = kept[index]
        yield Shown(row["image"].convert("RGB"), np.asarray(row["landmarks"], dtype=float))


class _Judge:
    """Says how well a detector finds faces."""

    def __init__(self, finder: LandmarkFinder, num_points: int):
        self._finder = finder
        self._normalizer = checkpoint_scheme(finder.model.config, num_points).normalizer

    def __call__(self, shown: list[Shown]) -> dict:
        """Return how many are found by searching, their mean error, and that in the box of the points."""
        searched, given = [], []
        for face in shown:
            given.append(self._error(face, face.box))
            middle = face.points.mean(0)
            for box in self._finder.detect(face.image):
                if all(box[axis] < middle[axis] < box[axis] + box[2 + axis] for axis in range(2)):
                    searched.append(self._error(face, box))
                    break
        return {"found": len(searched), "error": _mean(searched), "error in the given box": _mean(given)}

    def faceless(self, shown: list[Shown]) -> int:
        """Return how many of the boxes are said to hold no face."""
        found = (self._finder.find([face.image], [[tuple(face.box)]])[0][0] for face in shown)
        return sum("is_face" in face for face in found)

    def _error(self, face: Shown, box) -> float:
        ((found,),) = self._finder.find([face.image], [[box if hasattr(box, "roll") else tuple(box)]])
        points = np.asarray(found["keypoints"], dtype=float)[None]
        return float(normalized_mean_error(points, face.points[None], self._normalizer, face.box[None])[0])


def _mean(errors: list[float]) -> float | None:
    return round(float(np.mean(errors)), 2) if errors else None


def _turned(face: Shown, degrees: float) -> Shown:
    """Turn a picture and its face clockwise; the canvas grows."""
    image = face.image.rotate(-degrees, expand=True, resample=Image.Resampling.BICUBIC)
    before, after = ((np.array(size) - 1) / 2 for size in (face.image.size, image.size))
    return Shown(image, turn_points(face.points[None], before[None], np.array([degrees]))[0] - before + after)


def _cut(face: Shown, side: str, share: float) -> Shown:
    """Cut a picture so that a share of the face lies beyond one border."""
    x, y, width, height = face.box
    left, top, right, bottom = 0, 0, *face.image.size
    if side == "left":
        left = round(x + share * width)
    elif side == "right":
        right = round(x + (1 - share) * width)
    elif side == "upper":
        top = round(y + share * height)
    else:
        bottom = round(y + (1 - share) * height)
    return Shown(face.image.crop((left, top, right, bottom)), face.points - (left, top))


def _covered(face: Shown) -> Shown:
    """Cover the lower half of a face with gray."""
    x, y, width, height = face.box
    image = face.image.copy()
    image.paste((GRAY,) * 3, (round(x), round(y + height / 2), round(x + width), round(y + height)))
    return Shown(image, face.points)


def _small_faces(finder: LandmarkFinder, faces: list[Shown], height: int) -> dict:
    """Return how many of small faces are found in collages of three sizes, a fifth of whose cells are filled."""
    random, found, total = np.random.default_rng(0), 0, 0
    for side in (900, 1400, 2000):
        cell = 4 * height
        places = random.permutation((side // cell) ** 2)[: (side // cell) ** 2 // 5]
        collage, boxes = Image.new("RGB", (side, side), (GRAY,) * 3), []
        for number, place in enumerate(places):
            face = faces[number % len(faces)]
            box = face.box * (height / face.box[3])
            scaled = face.image.resize([max(1, round(length * height / face.box[3])) for length in face.image.size])
            left, top = (round(value) for value in box[:2] + box[2:] / 2 - cell / 2)
            x, y = int(place % (side // cell)) * cell, int(place // (side // cell)) * cell
            collage.paste(scaled.crop((left, top, left + cell, top + cell)), (x, y))
            boxes.append(box + np.array([x - left, y - top, 0, 0]))
        detected = [np.asarray(tuple(box)) for box in finder.detect(collage)]
        found += sum(max((box_overlap(box, one) for one in detected), default=0.0) >= FOUND_IOU for box in boxes)
        total += len(boxes)
    return {"height": height, "found": found, "of": total}


def _background(arguments: BenchmarkArguments) -> Iterator[Shown]:
    """Yield square boxes at random places of photographs without people."""
    random = np.random.default_rng(0)
    pictures = [Image.open(path).convert("RGB") for path in arguments.background]
    for index in range(arguments.boxes):
        image = pictures[index % len(pictures)]
        side = int(random.integers(min(40, min(image.size) // 4), min(image.size) // 2))
        corner = np.array([random.integers(0, length - side) for length in image.size], dtype=float)
        yield Shown(image, np.stack([corner, corner + side]) - 0.5)


if __name__ == "__main__":
    run_main(main, parse_arguments(BenchmarkArguments, __doc__ or ""))
