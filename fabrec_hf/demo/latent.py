"""Walks through the latent space: random faces, and the way from one face to another (paper figures 3 and 4)."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from ..errors import DataError, ImageError
from ..inference.drawing import draw_landmarks
from ..inference.landmark_finder import LandmarkFinder
from ..model.image_inputs import Picture
from .detection import heat_colors, to_pictures
from .models import ModelShelf
from .uploads import Photograph


__all__ = ["LARGEST_SEED", "LOOKS", "SHAPES", "Interpolation", "LatentExplorer", "animate"]

LARGEST_SEED = 2**32 - 1
TILE = 256
HEAT_COLOR = (62, 245, 212)
# Directions that move landmarks, and directions that change the picture in other ways; what they are found by.
SHAPES, LOOKS = 4, 2
STEP = 0.5
BATCH = 24
LOOK_SIDE = 16


@dataclass(frozen=True)
class Interpolation:
    """The way from one face to another.

    Attributes:
        frames: Decoded faces with their landmarks.
        landmarks: (T, L, 2) as fractions of the crop.
    """

    frames: tuple[Image.Image, ...]
    landmarks: np.ndarray


class LatentExplorer:
    """Draws faces from latent vectors.

    Args:
        finder: Finds landmarks in decoded faces; it takes crops of the autoencoder's size.
        shelf: For the autoencoder.

    Raises:
        DataError: If model and autoencoder take crops of different sizes.
    """

    def __init__(self, finder: LandmarkFinder, shelf: ModelShelf):
        self._finder, self._autoencoder = finder, shelf.autoencoder
        if finder.model.config.image_size != self._autoencoder.config.image_size:
            raise DataError(f"{finder.name} takes other crops than the autoencoder {shelf.autoencoder_name} gives.")

    def latents(self, seed: int, count: int, spread: float) -> torch.Tensor:
        """Draw latent vectors (N, D) from the normal distribution that the autoencoder was trained toward.

        Args:
            seed: Of the draw; the first vectors of a seed are the same for any count.
            count: How many.
            spread: Standard deviation. Real faces lie nearer to the center than 1.

        Raises:
            DataError: If the seed is not a whole number in 0..4294967295.
        """
        if not (float(seed).is_integer() and 0 <= seed <= LARGEST_SEED):
            raise DataError(f"A seed is a whole number from 0 to {LARGEST_SEED}.")
        generator = torch.Generator().manual_seed(int(seed))
        size = self._autoencoder.config.latent_size
        # One call for all would draw other numbers for another count.
        return spread * torch.stack([torch.randn(size, generator=generator) for _ in range(count)])

    @torch.inference_mode()
    def encode(self, photograph: Photograph) -> torch.Tensor:
        """Encode the largest face of a photograph, (1, D).

        Raises:
            ImageError: If there is no face.
        """
        picture = Picture(photograph.image)
        boxes = self._finder.detect(picture)
        if not boxes:
            raise ImageError(f"No face was found in {photograph.name}: choose another photograph.")
        face = self._finder.find([picture], [boxes[:1]])[0][0]
        box, roll = face["bbox"].tolist(), float(face.get("roll", 0.0))
        pixel_values = self._finder.processor(picture, boxes=[box], rolls=[roll])["pixel_values"]
        return self._autoencoder.encode(pixel_values.to(self._autoencoder.device)).cpu()

    @torch.inference_mode()
    def random_faces(self, seed: int, count: int, spread: float) -> list[tuple[Image.Image, Image.Image]]:
        """Decode random latent vectors: each face, and its landmark heatmaps over it.

        The landmark model looks at the decoded face. Its transfer layers could draw from the random vector itself,
        but with its encoder they were tuned to other vectors than the autoencoder's.
        """
        decoded = self._decode(self.latents(seed, count, spread))
        outputs = self._finder.model(decoded.to(self._finder.model.device, self._finder.model.dtype))
        heat = torch.nn.functional.interpolate(
            outputs.heatmaps.amax(dim=1, keepdim=True).float().cpu(), size=decoded.shape[-1], mode="bilinear"
        )
        maps = heat.clamp(0, 1)[:, 0].numpy()
        faces = to_pictures(decoded, self._finder.processor)
        return [
            (_enlarged(face), _enlarged(heat_colors(face, each, HEAT_COLOR)))
            for face, each in zip(faces, maps, strict=True)
        ]

    @torch.inference_mode()
    def decoded_faces(self, seed: int, count: int, spread: float) -> list[Image.Image]:
        """Decode random latent vectors, as `latents` draws them, at the size of the autoencoder."""
        pictures = to_pictures(self._decode(self.latents(seed, count, spread)), self._finder.processor)
        return [Image.fromarray(np.ascontiguousarray(pixels)) for pixels in pictures]

    @torch.inference_mode()
    def interpolate(self, first: torch.Tensor, last: torch.Tensor, steps: int) -> Interpolation:
        """Go from one latent vector to another in a straight line.

        Args:
            first: (1, D).
            last: (1, D).
            steps: Pictures, both ends included; at least 2.
        """
        weights = torch.linspace(0, 1, steps)[:, None]
        decoded = self._decode((1 - weights) * first + weights * last)
        outputs = self._finder.model(decoded.to(self._finder.model.device, self._finder.model.dtype))
        landmarks = outputs.landmarks.float().cpu().numpy()
        frames = []
        scores = outputs.scores.float().cpu().numpy()
        for face, points, confidences in zip(
            to_pictures(decoded, self._finder.processor), landmarks, scores, strict=True
        ):
            picture = _enlarged(face)
            found = {"keypoints": points * TILE - 0.5, "scores": confidences}
            frames.append(draw_landmarks(picture, [found], self._finder.scheme))
        return Interpolation(tuple(frames), landmarks)

    @torch.inference_mode()
    def directions(self) -> torch.Tensor:
        """Return unit vectors (SHAPES + LOOKS, D) along which faces change the most about the mean face.

        The first ones are the right singular vectors of the landmarks' Jacobian, by central differences: along them
        landmarks move most. The others are the same of the small gray picture, at right angles to the first:
        light, color and texture. Signs are set so that the largest entry is positive.
        """
        size = self._autoencoder.config.latent_size
        steps = STEP * torch.cat([torch.eye(size), -torch.eye(size)])
        landmarks, pictures = [], []
        for part in steps.split(BATCH):
            decoded = self._decode(part)
            outputs = self._finder.model(decoded.to(self._finder.model.device, self._finder.model.dtype))
            landmarks.append(outputs.landmarks.float().cpu().flatten(1))
            small = torch.nn.functional.interpolate(decoded.float(), size=LOOK_SIDE, mode="area")
            pictures.append(small.mean(dim=1).flatten(1))
        shape, look = (torch.cat(rows) for rows in (landmarks, pictures))
        moved, changed = ((each[:size] - each[size:]) / (2 * STEP) for each in (shape, look))  # (D, outputs)
        shapes = torch.linalg.svd(moved.T, full_matrices=False).Vh[:SHAPES]
        rest = changed - shapes.T @ (shapes @ changed)
        looks = torch.linalg.svd(rest.T, full_matrices=False).Vh[:LOOKS]
        found = torch.cat([shapes, looks])
        largest = found.gather(1, found.abs().argmax(dim=1, keepdim=True))
        return found * largest.sign()

    @torch.inference_mode()
    def face_along(self, directions: torch.Tensor, amounts: Sequence[float]) -> Image.Image:
        """Decode the face that lies this far along each direction from the mean face, and draw its landmarks.

        Args:
            directions: (K, D) unit vectors.
            amounts: K distances.

        Raises:
            DataError: If there are other amounts than directions.
        """
        if len(amounts) != len(directions):
            raise DataError(f"There are {len(directions)} directions, but {len(amounts)} amounts.")
        latent = torch.tensor([[float(amount) for amount in amounts]]) @ directions
        return self.interpolate(latent, latent, 2).frames[0]

    def _decode(self, latents: torch.Tensor) -> torch.Tensor:
        return self._autoencoder.decode(latents.to(self._autoencoder.device)).cpu()


def animate(frames: tuple[Image.Image, ...], milliseconds: int = 120) -> bytes:
    """Return pictures as an animated WebP that goes there and back for ever."""
    file = io.BytesIO()
    there_and_back = [*frames, *frames[-2:0:-1]]
    there_and_back[0].save(
        file, "WEBP", save_all=True, append_images=there_and_back[1:], duration=milliseconds, loop=0, quality=80
    )
    return file.getvalue()


def _enlarged(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(pixels)).resize((TILE, TILE), Image.Resampling.BICUBIC)
