"""Faces to try the Teach page with: nobody's, drawn by the autoencoder itself."""

import torch
from PIL import Image

from ..model.geometry import EXTEND_BOTTOM, EXTEND_TOP
from .annotation import AnnotatedFace
from .latent import LatentExplorer
from .sessions import Session
from .uploads import Uploads


__all__ = ["SAMPLES", "add_samples"]

SAMPLES = 12
SAMPLE_SEED = 25
SAMPLE_SPREAD = 0.35
SAMPLE_SIDE = 384


@torch.inference_mode()
def add_samples(session: Session, explorer: LatentExplorer, uploads: Uploads) -> list[AnnotatedFace]:
    """Put drawn faces into a session as if they had been uploaded.

    Args:
        session: Whose.
        explorer: Draws them.
        uploads: Where uploads lie.

    Returns:
        The faces, whose boxes are known: the crop of each is its whole picture.

    Raises:
        DataError: If the session would hold too many photographs.
    """
    pictures = explorer.decoded_faces(SAMPLE_SEED, SAMPLES, SAMPLE_SPREAD)
    paths = []
    for number, picture in enumerate(pictures, start=1):
        path = uploads.new_file(f"drawn-{number:02d}.png")
        picture.resize((SAMPLE_SIDE, SAMPLE_SIDE), Image.Resampling.BICUBIC).save(path)
        paths.append(str(path))
    kept, _ = session.add_photographs(paths, uploads)
    side = SAMPLE_SIDE / (1 + EXTEND_TOP + EXTEND_BOTTOM)
    box = ((SAMPLE_SIDE - side) / 2, EXTEND_TOP * side, side, side)
    return [AnnotatedFace(file, name, box) for file, name in kept]
