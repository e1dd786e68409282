"""A writer of the lists of WFLW, a face a line, which `wflw` reads back and which most landmark trainers take."""

from collections.abc import Sequence

import numpy as np

from ...errors import DataError, SchemeError
from ...model.known_schemes import LandmarkScheme
from ..sets.wflw import ATTRIBUTES, NUM_POINTS
from .annotated import FaceToWrite, PictureToWrite
from .layouts import shortest


__all__ = ["check_wflw_points", "check_wflw_pictures", "wflw_list"]


def check_wflw_points(num_landmarks: int) -> None:
    """Refuse points that the lists have no place for.

    Raises:
        SchemeError: If there are other than 98.
    """
    if num_landmarks != NUM_POINTS:
        raise SchemeError(f"The lists of WFLW hold {NUM_POINTS} points each, not {num_landmarks}; write another form.")


def check_wflw_pictures(names: Sequence[str]) -> None:
    """Refuse pictures whose names would end in the middle, for spaces part the fields of a list.

    Raises:
        DataError: If there is one.
    """
    spaced = next((name for name in names if len(name.split()) != 1), None)
    if spaced is not None:
        raise DataError(f"The lists of WFLW cannot name {spaced!r}, in which there is a space; rename it.")


def wflw_list(pictures: Sequence[PictureToWrite], scheme: LandmarkScheme) -> bytes:
    """Return a list: 98 points, the rectangle's corners, six attributes and the picture, in every line.

    Rectangles are whole pixels, as in the published lists. A face without a box has the tight box of its points.

    Args:
        pictures: What to write, by their names below the folder of pictures.
        scheme: The mark-up.

    Raises:
        SchemeError: If it has other than 98 points.
        DataError: If a point is not annotated, or a picture has a space in its name.
    """
    check_wflw_points(scheme.num_landmarks)
    check_wflw_pictures([picture.name for picture in pictures])
    lines = [_line(picture.name, face) for picture in pictures for face in picture.faces]
    return "".join(f"{line}\n" for line in lines).encode()


def _line(picture: str, face: FaceToWrite) -> str:
    points = np.asarray(face.points, dtype=np.float32)
    if not np.isfinite(points).all():
        missing = int(np.flatnonzero(~np.isfinite(points).all(axis=1))[0])
        raise DataError(f"A face of {picture} lacks point {missing}, and the lists of WFLW hold whole faces alone.")
    if face.box is None:
        corners = [*points.min(axis=0), *points.max(axis=0)]
    else:
        x, y, width, height = face.box
        corners = [x, y, x + width, y + height]
    attributes = [int(bool(face.attributes.get(name))) for name in ATTRIBUTES]
    fields = [*(repr(shortest(float(value))) for value in points.ravel()), *(round(float(value)) for value in corners)]
    return " ".join(map(str, [*fields, *attributes, picture]))
