"""What the Detect page shows of a photograph, as arrays, pictures and plain data."""

import io
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..inference.drawing import draw_landmarks, draw_overview, heat_colors
from ..inference.explained_away import explained_away
from ..inference.face_records import picture_record, picture_table
from ..inference.landmark_finder import LandmarkFinder
from ..inference.model_pictures import enlarge, highest_heat, to_pictures
from ..model.image_inputs import Picture
from ..model.known_schemes import LandmarkScheme
from .models import ModelShelf
from .uploads import Limits, Photograph


__all__ = ["FaceViews", "FoundFaces", "find_faces"]

# Pictures are searched at this size of the longer side at most; what is found refers to the file's pixels.
SEARCH_SIDE = 2048
TILE = 384


@dataclass(frozen=True)
class FaceViews:
    """One face.

    Attributes:
        keypoints: (L, 2) in pixels of the searched picture, centers at integers.
        scores: (L,) in [0, 1].
        box: (4,) x, y, width, height in pixels of the searched picture, turned about its middle by `roll`.
        crop_points: (L, 2) as fractions of the crop.
        crop: (S, S, 3) uint8, what the model saw.
        reconstruction: (S, S, 3) uint8.
        heat: (S, S) the highest of the heatmaps at each place, in [0, 1].
        explained: (S, S) where crop and reconstruction differ, in [0, 1].
        roll: Degrees by which the face is turned clockwise, if it was looked at upright.
        expected_errors: (L,) in pixels of the searched picture; None where the detector cannot tell.
    """

    keypoints: np.ndarray
    scores: np.ndarray
    box: np.ndarray
    crop_points: np.ndarray
    crop: np.ndarray
    reconstruction: np.ndarray
    heat: np.ndarray
    explained: np.ndarray
    roll: float = 0.0
    expected_errors: np.ndarray | None = None


@dataclass(frozen=True)
class FoundFaces:
    """All that was found in a photograph.

    Attributes:
        photograph: The photograph.
        faces: The largest first.
        model: Name of the checkpoint.
        scheme: Its landmark scheme.
        seconds: How long it took.
        left_out: Faces beyond the limit, the smallest ones, that were not looked at.
    """

    photograph: Photograph
    faces: tuple[FaceViews, ...]
    model: str
    scheme: LandmarkScheme | None
    seconds: float
    left_out: int = 0

    def overlay(self, threshold: float = 0.0) -> Image.Image:
        """Draw the landmarks that score at least the threshold."""
        drawn = [
            {"keypoints": face.keypoints, "scores": face.scores, "bbox": face.box, "roll": face.roll}
            for face in self.faces
        ]
        for number, face in enumerate(drawn, start=1):
            face["label"] = str(number) if len(drawn) > 1 else ""  # type: ignore[assignment]
        return draw_overview(self.photograph.image, drawn, self.scheme, min_score=threshold or None)

    def record(self, threshold: float = 0.0) -> dict[str, Any]:
        """Return what was found as plain data in pixels of the file; landmarks below the threshold are null."""
        scale, faces = self.photograph.scale, []
        for face in self.faces:
            points = (face.keypoints + 0.5) * scale - 0.5
            points[face.scores < threshold] = np.nan
            expected = None if face.expected_errors is None else face.expected_errors * scale
            found = {"keypoints": points, "scores": face.scores, "bbox": face.box * scale, "roll": face.roll}
            faces.append(found | {"expected_errors": expected})
        name, names = (self.scheme.name, self.scheme.point_names) if self.scheme else (None, None)
        return picture_record(Path(self.photograph.name), self.photograph.size, faces, self.model, name, names)

    def files(self, threshold: float = 0.0) -> dict[str, bytes]:
        """Return the JSON, the CSV and the overlay by the name of the file."""
        stem, record = Path(self.photograph.name).stem or "faces", self.record(threshold)
        picture = io.BytesIO()
        self.overlay(threshold).save(picture, "PNG", compress_level=1)  # about a quarter of the time
        return {
            f"{stem}.json": json.dumps(record, indent=2).encode(),
            f"{stem}.csv": picture_table(record).encode(),
            f"{stem}.landmarks.png": picture.getvalue(),
        }

    def landmark_picture(self, face: int, threshold: float = 0.0) -> Image.Image:
        """Return the landmarks of a face that score at least the threshold, drawn on its crop."""
        views = self.faces[face]
        found = {"keypoints": views.crop_points * TILE - 0.5, "scores": views.scores, "bbox": (0, 0, TILE, TILE)}
        return draw_landmarks(
            enlarge(views.crop, TILE), [found], self.scheme, min_score=threshold or None, draw_boxes=False
        )

    def heatmap_picture(self, face: int) -> Image.Image:
        """Return the heatmaps of a face over its crop."""
        views = self.faces[face]
        return enlarge(heat_colors(views.crop, views.heat), TILE)

    def explained_picture(self, face: int) -> Image.Image:
        """Return what of a face is not reconstructed, red over its crop, which is shown gray."""
        views = self.faces[face]
        gray = np.repeat(views.crop.mean(axis=-1, keepdims=True), 3, axis=-1)
        opacity = 0.85 * views.explained[..., None]
        shown = np.round(gray * (1 - opacity) + np.array([255, 60, 40]) * opacity).astype(np.uint8)
        return enlarge(shown, TILE)

    def slider_pictures(self, face: int) -> tuple[Image.Image, Image.Image]:
        """Return the crop of a face and its reconstruction."""
        views = self.faces[face]
        return enlarge(views.crop, TILE), enlarge(views.reconstruction, TILE)


@torch.inference_mode()
def find_faces(photograph: Photograph, finder: LandmarkFinder, shelf: ModelShelf, limits: Limits) -> FoundFaces:
    """Find the faces of a photograph, their landmarks, and what the autoencoder makes of each.

    Args:
        photograph: The photograph.
        finder: The landmark model.
        shelf: For the autoencoder.
        limits: How many faces to look at.

    Raises:
        ImageError: If the picture cannot be searched.
    """
    start = time.perf_counter()
    picture = Picture(photograph.image)
    detected = finder.detect(picture)
    boxes = detected[: limits.faces]
    faces: tuple[FaceViews, ...] = ()
    if boxes:
        found = finder.find([picture], [boxes])[0]
        boxes = [list(map(float, face["bbox"])) for face in found]
        rolls = [float(face.get("roll", 0.0)) for face in found]
        errors = [None if (each := face.get("expected_errors")) is None else each.double().numpy() for face in found]
        # Once more for what else the model knows of a face: its heatmaps.
        inputs = finder.processor(picture, boxes=boxes, rolls=rolls)
        pixel_values = inputs.pop("pixel_values")
        outputs = finder.model(pixel_values.to(finder.model.device, finder.model.dtype))
        reconstruction = shelf.reconstruct(pixel_values, finder)
        keypoints = np.stack([face["keypoints"].double().numpy() for face in found])
        points = finder.processor.landmarks_to_crop(keypoints, inputs["crop_boxes"], inputs["rolls"])
        heat = highest_heat(outputs.heatmaps, pixel_values.shape[-1])
        maps = explained_away(pixel_values, reconstruction).numpy()
        crops = to_pictures(pixel_values, finder.processor)
        drawn = to_pictures(reconstruction, finder.processor)
        places = [[np.asarray(face[key], dtype=float) for key in ("keypoints", "scores", "bbox")] for face in found]
        views: Any = zip(places, points, crops, drawn, heat, maps, rolls, errors, strict=True)
        faces = tuple(FaceViews(*place, *others) for place, *others in views)
    seconds, left_out = time.perf_counter() - start, len(detected) - len(faces)
    return FoundFaces(photograph, faces, finder.name, finder.scheme, seconds, left_out)
