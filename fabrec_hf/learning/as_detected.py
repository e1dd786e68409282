"""Annotated faces in the crops that detection will give them, so that an estimated error is that of detection.

Boxes of annotations are what a person or a tool has drawn. A detector of points meets faces in the boxes of the face
detector, and errs more where the two mean different things.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import datasets
import numpy as np
import torch
from PIL import Image

from ..data.annotations import annotations
from ..data.decoding import CANVAS_RATIO, cut_canvas, open_picture_of_row
from ..data.face_boxes import share_inside
from ..data.face_table import encoded_images
from ..model.face_detection import Detection, default_face_detector
from ..model.geometry import crop_box_from_box
from ..model.image_processing_fabrec import FabRecImageProcessor
from ..model.second_look import boxes_of, roll_of_crop
from ..model.turned_crops import landmarks_to_turned_crop, turn_crops
from .labeled_faces import LabeledFaces


__all__ = ["FacesAsDetected"]


class FacesAsDetected:
    """Cuts annotated faces again, where the face detector finds them: turned upright as `fabrec detect` turns them.

    A face that the detector does not find stays in the crop of its given box.

    Args:
        dataset: The rows that `faces` were made of.
        faces: These faces in the crops of their given boxes.
        processor: Says how crops are cut.
        detector: Finds the faces of a picture; the default one if None.
    """

    def __init__(
        self,
        dataset: datasets.Dataset,
        faces: LabeledFaces,
        processor: FabRecImageProcessor,
        detector: Callable[[Any], list[Detection]] | None = None,
    ):
        self._rows = encoded_images(dataset.select_columns(["image", "landmarks", "box"]))
        self._faces, self._processor = faces, processor
        self._detector = detector or default_face_detector()

    def __call__(self, rows: np.ndarray) -> LabeledFaces:
        """Return the faces of some rows, which are integers (M,), as detection will see them.

        Raises:
            DataError: If a picture cannot be read.
        """
        cut = self._faces.subset(rows)
        pixels = cut.canvases.pixels  # of these rows alone: they are copies, as all that is changed below
        points, _ = annotations(self._rows.select(rows))
        for place, row in enumerate(rows):
            picture = open_picture_of_row(self._rows[int(row)] | {"row": int(row)})
            face = _face_of(self._detector(picture), points[place])
            cut.detected[place] = face is not None
            if face is None:
                continue
            (box,) = boxes_of([face], self._processor)
            roll = roll_of_crop(getattr(box, "roll", None))
            given = np.array([tuple(box)])
            crop = crop_box_from_box(given, self._processor.extend_top, self._processor.extend_bottom)
            crop = turn_crops(crop, given, np.array([roll]))[0]
            canvas = np.array(_cut_turned(picture, crop, roll, pixels.shape[-1]))
            pixels[place] = torch.from_numpy(canvas).permute(2, 0, 1)
            cut.landmarks[place] = torch.as_tensor(landmarks_to_turned_crop(points[place], crop, roll)).float()
            # Errors are still measured by the given box, where a scheme measures them by a box.
            cut.boxes[place] *= cut.crop_boxes[place, 2] / crop[2]
            cut.crop_boxes[place], cut.rolls[place] = crop, roll
        return cut


def _face_of(found: Sequence[Detection], points: np.ndarray) -> Detection | None:
    """Return the detected face that holds most of the points (L, 2), if it holds half of them."""
    shares = [share_inside(points, np.array(face.box)) for face in found]
    best = int(np.argmax(shares)) if shares else -1
    return found[best] if shares and shares[best] >= 0.5 else None


def _cut_turned(picture: Image.Image, crop: np.ndarray, roll: float, size: int) -> Image.Image:
    """Cut a crop, turned clockwise about its middle by a roll in degrees, as `cut_canvas` cuts an upright one."""
    if not roll:
        return cut_canvas(picture, crop.tolist(), size)
    x, y, side, _ = crop
    middle = np.array([x + side / 2, y + side / 2])
    reach = CANVAS_RATIO**2 / 2 * side + 2  # what the turned canvas reaches to, black beyond the picture
    left, top = (math.floor(value) for value in middle - reach)
    right, bottom = (math.ceil(value) for value in middle + reach)
    wide = picture.crop((left, top, right, bottom))
    upright = wide.rotate(roll, Image.Resampling.BICUBIC, center=tuple(middle - (left, top)))
    return cut_canvas(upright, (x - left, y - top, side, side), size)
