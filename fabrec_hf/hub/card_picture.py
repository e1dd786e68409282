"""The picture of a model card: faces with their landmarks, or beside their reconstructions."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..errors import ImageError
from ..inference.drawing import draw_landmarks
from ..model.face_detection import default_face_detector
from ..model.image_inputs import Picture
from ..model.image_processing_fabrec import FabRecImageProcessor
from ..model.known_schemes import LandmarkScheme
from ..model.landmark_reading import read_landmarks
from ..model.modeling_fabrec import FabRecForLandmarkDetection
from ..model.turned_crops import TURNED_FROM


__all__ = ["draw_card_picture"]

TILE = 208


@torch.no_grad()
def draw_card_picture(model: Any, processor: FabRecImageProcessor, photos: Sequence[Path]) -> bytes:
    """Draw the first face of every photograph: with its landmarks, or its reconstruction to the right of it.

    Args:
        model: A landmark model or an autoencoder, in eval mode.
        processor: Its image processor.
        photos: Files; each must show a face.

    Returns:
        A PNG of one row.

    Raises:
        ImageError: A photograph cannot be read, or no face is found in it.
    """
    detector = default_face_detector(small_faces=True)  # the better box; a card is drawn once
    tiles: list[Image.Image] = []
    for photo in photos:
        try:
            picture = Picture(str(photo))
        except (OSError, ValueError) as error:
            raise ImageError(str(error)) from error
        faces = detector(picture.rgb)
        upright = [face.box for face in faces if abs(getattr(face, "roll", None) or 0.0) <= TURNED_FROM]
        found = processor.boxes_from_detections(upright)
        if not len(found):
            raise ImageError(f"No upright face was found in {photo}: name another photograph.")
        tiles += _draw_face(model, processor, picture, found[0])
    sheet = Image.new("RGB", (TILE * len(tiles), TILE))
    for place, tile in enumerate(tiles):
        sheet.paste(tile, (TILE * place, 0))
    file = io.BytesIO()
    sheet.save(file, "PNG", optimize=True)
    return file.getvalue()


def _draw_face(model: Any, processor: FabRecImageProcessor, picture: Picture, box: Any) -> list[Image.Image]:
    if isinstance(model, FabRecForLandmarkDetection):
        reading = read_landmarks(model, processor, [picture], [[box]], second_look=False)
        scheme = model.config.landmark_scheme
        face = {"keypoints": reading.landmarks[0].numpy() * TILE - 0.5, "scores": reading.scores[0].numpy()}
        tile = _tile(picture, reading.geometry["crop_boxes"][0].tolist())
        return [draw_landmarks(tile, [face], LandmarkScheme.from_dict(scheme) if scheme else None)]
    inputs = processor(picture, boxes=[box])
    outputs, tile = model(inputs["pixel_values"]), _tile(picture, inputs["crop_boxes"][0].tolist())
    mean = torch.tensor(processor.image_mean).view(3, 1, 1)
    shown = ((outputs.reconstruction[0] + mean).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    return [tile, Image.fromarray(np.ascontiguousarray(shown)).resize((TILE, TILE), Image.Resampling.BICUBIC)]


def _tile(picture: Picture, crop_box: Sequence[float]) -> Image.Image:
    """Cut a crop (x, y, side, side) out of a photograph; black beyond it, as the model's crop is."""
    x, y, side, _ = crop_box
    place = (side / TILE, 0, x, 0, side / TILE, y)
    photo = Image.fromarray(picture.rgb)
    return photo.transform((TILE, TILE), Image.Transform.AFFINE, place, Image.Resampling.BILINEAR)
