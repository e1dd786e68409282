"""The wide picture of a model card: a row of what a detector makes of photographs, or an autoencoder."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..errors import ImageError
from ..inference.drawing import draw_landmarks, heat_colors
from ..inference.model_pictures import enlarge, highest_heat, to_pictures
from ..model.face_detection import default_face_detector
from ..model.image_inputs import Picture
from ..model.image_processing_fabrec import FabRecImageProcessor
from ..model.known_schemes import LandmarkScheme
from ..model.modeling_fabrec import FabRecForLandmarkDetection
from ..model.second_look import roll_of_crop


__all__ = ["draw_card_picture", "shows_reconstruction"]

TILE = 176


@torch.no_grad()
def draw_card_picture(model: Any, processor: FabRecImageProcessor, photos: Sequence[Path]) -> bytes:
    """Draw the first face of every photograph, and to the right of it what the model makes of it.

    That is of an autoencoder the reconstruction; of a detector the heatmaps, the landmarks, and the reconstruction
    where `shows_reconstruction`.

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
        upright = [face.box for face in faces if not roll_of_crop(getattr(face, "roll", None))]
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
    # Not by `read_landmarks`: heatmaps and reconstruction are shown, too.
    inputs = processor(picture, boxes=[box])
    tile = _cut_tile(picture, inputs["crop_boxes"][0].tolist())
    is_detector = isinstance(model, FabRecForLandmarkDetection)
    wanted = {"output_reconstruction": True} if is_detector and shows_reconstruction(model.config.backbone) else {}
    outputs = model(inputs["pixel_values"].to(model.device), **wanted)
    if is_detector:
        scheme = model.config.landmark_scheme
        face = {
            "keypoints": outputs.landmarks[0].cpu().numpy() * TILE - 0.5,
            "scores": outputs.scores[0].cpu().numpy(),
        }
        heat = highest_heat(outputs.heatmaps, TILE)[0]
        tiles = [
            tile,
            Image.fromarray(heat_colors(np.asarray(tile), heat)),
            draw_landmarks(tile, [face], LandmarkScheme.from_dict(scheme) if scheme else None),
        ]
        return [*tiles, _reconstruction(outputs, processor)] if wanted else tiles
    return [tile, _reconstruction(outputs, processor)]


def shows_reconstruction(backbone: str | None) -> bool:
    """Whether what a detector reconstructs is worth showing.

    An encoder that a mesh has taught says where points are, and hardly anything of how the face looks.
    """
    return backbone != "face_mesh"


def _reconstruction(outputs: Any, processor: FabRecImageProcessor) -> Image.Image:
    return enlarge(to_pictures(outputs.reconstruction, processor)[0], TILE)


def _cut_tile(picture: Picture, crop_box: Sequence[float]) -> Image.Image:
    """Cut a crop (x, y, side, side) out of a photograph; black beyond it, as the model's crop is."""
    x, y, side, _ = crop_box
    place = (side / TILE, 0, x, 0, side / TILE, y)
    photo = Image.fromarray(picture.rgb)
    return photo.transform((TILE, TILE), Image.Transform.AFFINE, place, Image.Resampling.BILINEAR)
