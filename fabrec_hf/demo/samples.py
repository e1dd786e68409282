"""Faces to try the Teach page with: the photographs to try, and faces that nobody has, drawn by the autoencoder."""

import numpy as np
from PIL import Image

from ..model.geometry import EXTEND_BOTTOM, EXTEND_TOP
from .annotation import AnnotatedFace
from .latent import LatentExplorer
from .sessions import Session
from .uploads import Uploads


__all__ = ["DRAWN", "draw_samples"]

DRAWN = 10
# A little nearer to the mean face than photographs are; the detector is fairly sure of each of these.
SAMPLE_SEED = 1
SAMPLE_SPREAD = 0.8
SAMPLE_SIDE = 320
# What the board shows around a crop; the colors of its rim go on there, a black frame would be no photograph.
FRAME = 48


def draw_samples(session: Session, explorer: LatentExplorer, uploads: Uploads) -> list[AnnotatedFace]:
    """Put drawn faces into a session as if they had been uploaded.

    Args:
        session: Whose.
        explorer: Draws them.
        uploads: Where uploads lie.

    Returns:
        The faces, whose boxes are known: the crop of each is what was decoded.

    Raises:
        DataError: If the session would hold too many photographs.
    """
    paths = []
    for number, picture in enumerate(explorer.decoded_faces(SAMPLE_SEED, DRAWN, SAMPLE_SPREAD), start=1):
        path = uploads.new_file(f"drawn-{number:02d}.png")
        pixels = np.asarray(picture.resize((SAMPLE_SIDE, SAMPLE_SIDE), Image.Resampling.BICUBIC))
        Image.fromarray(np.pad(pixels, ((FRAME, FRAME), (FRAME, FRAME), (0, 0)), mode="edge")).save(path)
        paths.append(str(path))
    kept, _ = session.add_photographs(paths, uploads)
    side = SAMPLE_SIDE / (1 + EXTEND_TOP + EXTEND_BOTTOM)
    box = (FRAME + (SAMPLE_SIDE - side) / 2, FRAME + EXTEND_TOP * side, side, side)
    return [AnnotatedFace(file, name, box) for file, name in kept]
