"""Faces with fewer points: the landmarks of a set converted to a mark-up that needs no more than they say."""

from dataclasses import dataclass

import numpy as np

from ..errors import SchemeError
from ..model.known_schemes import LandmarkScheme, conversions_of, convert_landmarks
from .source import FaceSource, Row


__all__ = ["SchemeConversion", "find_conversion"]


@dataclass(frozen=True)
class SchemeConversion:
    """From one mark-up to another.

    Attributes:
        source: The scheme that rows come with.
        target: The scheme that they leave with.
    """

    source: LandmarkScheme
    target: LandmarkScheme

    def convert(self, row: Row) -> Row:
        """Return a row with converted landmarks; a mean of points is visible if all of them are."""
        changed = {"landmarks": convert_landmarks(row["landmarks"], self.source, self.target)}
        if row.get("visibility") is not None:
            visible = np.repeat(np.array(row["visibility"], dtype=np.float64)[:, None], 2, axis=1)
            changed["visibility"] = convert_landmarks(visible, self.source, self.target)[:, 0] == 1
        return row | changed


def find_conversion(source: FaceSource, target: str) -> SchemeConversion:
    """Return how the landmarks of a set become those of a built-in scheme.

    Args:
        source: The opened data.
        target: The scheme's name, `"300w"` or `"mtfl"`.

    Raises:
        SchemeError: If that cannot be.
    """
    possible = {scheme.name: scheme for scheme in (conversions_of(source.scheme) if source.scheme else ())}
    if target not in possible:
        if source.scheme is None:
            raise SchemeError(f"The {source.kind} data has no landmarks to convert to {target}.")
        known = f"they can to {', '.join(possible)}" if possible else "only those of wflw and 300w can be converted"
        raise SchemeError(
            f"The {source.kind} data has the points of the scheme {source.scheme.name}, which cannot be converted to "
            f"{target}; {known}."
        )
    return SchemeConversion(source.scheme, possible[target])  # type: ignore[arg-type]
