"""Walks through the latent space: random faces, and the way from one face to another (paper figures 3 and 4).

Landmarks are found in decoded pictures, by the detector's own encoder. Its transfer layers cannot draw from the
autoencoder's latent vector: they learned together with an encoder that was taught by a mesh, whose vectors for the
same faces point elsewhere. Drawn from vectors of the autoencoder, heatmaps hardly rise, and show nothing.

Colored noise in the lower left corner of random faces came from a single direction of the latent space. The encoder
gives nearly all photographs about the same number along it and a few, which `training/latent_distribution.py` counts
and leaves out, one that is far away. The decoder answers the latter with activations many times as large in the corner
of its first stage. The full normal distribution strays there more often than the distribution of the other
photographs, which faces are drawn from.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from ..errors import DataError, ImageError
from ..inference.drawing import draw_landmarks, heat_colors
from ..inference.landmark_finder import LandmarkFinder
from ..inference.model_pictures import enlarge, highest_heat, to_pictures
from ..model.image_inputs import Picture
from ..model.known_schemes import LandmarkScheme
from .models import ModelShelf
from .uploads import Photograph


__all__ = ["LARGEST_SEED", "SPREAD", "Directions", "Interpolation", "LatentExplorer", "animate", "direction_labels"]

LARGEST_SEED = 2**32 - 1
TILE, LARGE = 256, 448
# At 1 faces differ as photographs do; a little nearer to the mean nearly all of them are whole.
SPREAD = 0.8
# How many directions are found by what: by all landmarks, by the landmarks of the mouth alone, by the gray picture.
GROUPS = {"Pose": 3, "Mouth": 2, "Light": 2}
MOUTH = "mouth"
# Random faces that directions are found by, and what keeps directions small that these faces say little of.
DIRECTION_FACES, DIRECTION_SEED, RIDGE = 256, 7, 0.1
BATCH = 32
LOOK_SIDE = 16


@dataclass(frozen=True)
class Directions:
    """Directions along which faces change the most.

    Attributes:
        labels: What each one is called, such as "Pose 1".
        vectors: (K, D), each as long as the standard deviation of photographs along it; photographs do not correlate
            along them.
    """

    labels: tuple[str, ...]
    vectors: torch.Tensor


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
        self._finder, self._autoencoder, self._distribution = finder, shelf.autoencoder, shelf.distribution
        if finder.model.config.image_size != self._autoencoder.config.image_size:
            raise DataError(f"{finder.name} takes other crops than the autoencoder {shelf.autoencoder_name} gives.")

    def latents(self, seed: int, count: int, spread: float) -> torch.Tensor:
        """Draw latent vectors (N, D) from the distribution of photographs, see `LatentDistribution`.

        Args:
            seed: Of the draw; the first vectors of a seed are the same for any count.
            count: How many.
            spread: How far from the mean, as a multiple of the distance of photographs.

        Raises:
            DataError: If the seed is not a whole number in 0..4294967295.
        """
        if not (float(seed).is_integer() and 0 <= seed <= LARGEST_SEED):
            raise DataError(f"A seed is a whole number from 0 to {LARGEST_SEED}.")
        generator = torch.Generator().manual_seed(int(seed))
        size = self._autoencoder.config.latent_size
        # One call for all would draw other numbers for another count.
        normal = torch.stack([torch.randn(size, generator=generator) for _ in range(count)])
        return self._distribution.place(spread * normal)

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
        """Decode random faces: each face, and its landmark heatmaps over it."""
        decoded = self._decode(self.latents(seed, count, spread))
        outputs = self._look(decoded)
        maps = highest_heat(outputs.heatmaps, decoded.shape[-1])
        faces = to_pictures(decoded, self._finder.processor)
        pairs = zip(faces, maps, strict=True)
        return [(enlarge(face, TILE), enlarge(heat_colors(face, heat), TILE)) for face, heat in pairs]

    @torch.inference_mode()
    def decoded_faces(self, seed: int, count: int, spread: float) -> list[Image.Image]:
        """Decode random faces, as `latents` draws them, at the size of the autoencoder."""
        pictures = to_pictures(self._decode(self.latents(seed, count, spread)), self._finder.processor)
        return [Image.fromarray(np.ascontiguousarray(pixels)) for pixels in pictures]

    @torch.inference_mode()
    def interpolate(self, first: torch.Tensor, last: torch.Tensor, steps: int, side: int = TILE) -> Interpolation:
        """Go from one latent vector to another in a straight line.

        Args:
            first: (1, D).
            last: (1, D).
            steps: Pictures, both ends included; of a single one the first.
            side: Of the pictures, in pixels.
        """
        weights = torch.linspace(0, 1, steps)[:, None]
        decoded = self._decode((1 - weights) * first + weights * last)
        outputs = self._look(decoded)
        landmarks = outputs.landmarks.float().cpu().numpy()
        frames = []
        scores = outputs.scores.float().cpu().numpy()
        for face, points, confidences in zip(
            to_pictures(decoded, self._finder.processor), landmarks, scores, strict=True
        ):
            picture = enlarge(face, side)
            found = {"keypoints": points * side - 0.5, "scores": confidences, "bbox": (0, 0, side, side)}
            frames.append(draw_landmarks(picture, [found], self._finder.scheme, draw_boxes=False))
        return Interpolation(tuple(frames), landmarks)

    @torch.inference_mode()
    def directions(self) -> Directions:
        """Find the directions along which faces change the most: pose, mouth and light.

        Landmarks and small gray pictures of random faces are predicted from their latent vectors by ridge regression.
        The first left singular vectors of its slopes are the directions along which all landmarks move most, then the
        landmarks of the mouth about its middle, then the picture, each at right angles to those before where the
        distribution of photographs is a unit sphere. A face counts by its mean score. Signs are set so that the
        largest entry is positive.
        """
        latents = self.latents(DIRECTION_SEED, DIRECTION_FACES, SPREAD)
        factor = self._distribution.factor
        normal = torch.linalg.solve(factor, (latents - self._distribution.mean).T).T
        landmarks, weights, pictures = [], [], []
        for part in latents.split(BATCH):
            decoded = self._decode(part)
            outputs = self._look(decoded)
            landmarks.append(outputs.landmarks.float().cpu())
            weights.append(outputs.scores.float().mean(dim=1).cpu())
            pictures.append(F.interpolate(decoded.float(), size=LOOK_SIDE, mode="area").mean(dim=1).flatten(1))
        points, weight = torch.cat(landmarks), torch.cat(weights)
        answers = {"Pose": points.flatten(1), "Light": torch.cat(pictures)}
        mouth = _mouth(self._finder.scheme)
        if mouth:
            lips = points[:, list(mouth)]
            answers["Mouth"] = (lips - lips.mean(dim=1, keepdim=True)).flatten(1)
        found = torch.empty(0, latents.shape[1])
        for group in [group for group in GROUPS if group in answers]:
            slopes = _slopes(normal, answers[group], weight)
            slopes = slopes - found.T @ (found @ slopes)
            vectors = torch.linalg.svd(slopes, full_matrices=False).U[:, : GROUPS[group]].T
            found = torch.cat([found, vectors])
        largest = found.gather(1, found.abs().argmax(dim=1, keepdim=True))
        return Directions(direction_labels(self._finder.scheme), found * largest.sign() @ factor.T)

    @torch.inference_mode()
    def face_along(self, base: torch.Tensor, directions: Directions, amounts: Sequence[float]) -> Image.Image:
        """Decode the face that lies this far along each direction from another face, and draw its landmarks.

        Args:
            base: (1, D) the latent vector of the other face.
            directions: K directions.
            amounts: K distances.

        Raises:
            DataError: If there are other amounts than directions.
        """
        if len(amounts) != len(directions.labels):
            raise DataError(f"There are {len(directions.labels)} directions, but {len(amounts)} amounts.")
        latent = base + torch.tensor([[float(amount) for amount in amounts]]) @ directions.vectors
        return self.face(latent)

    def face(self, latent: torch.Tensor) -> Image.Image:
        """Decode the face of a latent vector (1, D), and draw its landmarks."""
        return self.interpolate(latent, latent, 1, LARGE).frames[0]

    def _look(self, decoded: torch.Tensor) -> Any:
        return self._finder.model(decoded.to(self._finder.model.device, self._finder.model.dtype))

    def _decode(self, latents: torch.Tensor) -> torch.Tensor:
        device = self._autoencoder.device
        return torch.cat([self._autoencoder.decode(part.to(device)).cpu() for part in latents.split(BATCH)])


def direction_labels(scheme: LandmarkScheme | None) -> tuple[str, ...]:
    """Return what the directions of a detector with this scheme are called; without a mouth there are fewer."""
    groups = [group for group in GROUPS if group != "Mouth" or _mouth(scheme)]
    return tuple(f"{group} {number + 1}" for group in groups for number in range(GROUPS[group]))


def _mouth(scheme: LandmarkScheme | None) -> tuple[int, ...]:
    return tuple(scheme.parts.get(MOUTH, ())) if scheme else ()


def _slopes(normal: torch.Tensor, answers: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Predict answers (N, M) from draws (N, D) by weighted ridge regression about the means; slopes (D, M)."""
    share = (weight / weight.sum())[:, None]
    given, wanted = (values - (share * values).sum(dim=0) for values in (normal, answers))
    spread = (given * share).T @ given
    ridge = RIDGE * spread.diagonal().mean() * torch.eye(len(spread))
    return torch.linalg.solve(spread + ridge, (given * share).T @ wanted)


def animate(frames: tuple[Image.Image, ...], milliseconds: int = 120) -> bytes:
    """Return pictures as an animated WebP that goes there and back for ever."""
    file = io.BytesIO()
    there_and_back = [*frames, *frames[-2:0:-1]]
    there_and_back[0].save(
        file, "WEBP", save_all=True, append_images=there_and_back[1:], duration=milliseconds, loop=0, quality=80
    )
    return file.getvalue()
