"""Which length an error is divided by, spelled out: a name, two points, or what a scheme says of itself.

The same predictions score 3 % or 5 % according to the length, so none is ever guessed from the number of points.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from ..errors import SchemeError
from ..model.known_schemes import LandmarkScheme, Normalizer, get_scheme, known_normalizers


__all__ = ["NormalizerLike", "SchemeLike", "as_scheme", "named_normalizer"]

SchemeLike: TypeAlias = str | Mapping[str, Any] | LandmarkScheme
"""A scheme: its name if it is built in, what `LandmarkScheme.to_dict` wrote, or the scheme itself."""

NormalizerLike: TypeAlias = None | str | Sequence[Any] | Mapping[str, Any] | Normalizer
"""A normalizer in any of the forms that `named_normalizer` takes."""

_MEASURED_BETWEEN = {"inter_ocular": "outer eye corners", "inter_pupil": "eye centers"}


def as_scheme(scheme: SchemeLike) -> LandmarkScheme:
    """Return the scheme that is meant.

    Args:
        scheme: `"300w"`, `"wflw"`, `"aflw"` or `"mtfl"`, a mapping as `LandmarkScheme.to_dict` writes it (the
            `landmark_scheme` of a checkpoint's config, for example), or a scheme.

    Raises:
        SchemeError: If there is no scheme of that name, or the mapping is none.
    """
    if isinstance(scheme, LandmarkScheme):
        return scheme
    try:
        return get_scheme(scheme) if isinstance(scheme, str) else LandmarkScheme.from_dict(scheme)
    except ValueError as error:  # the schemes are among the model files, which know no errors of the package
        raise SchemeError(str(error)) from None


def named_normalizer(normalizer: NormalizerLike, scheme: SchemeLike) -> Normalizer:
    """Turn a normalizer as people write it into the points or box side to measure.

    | `normalizer` | the length |
    |---|---|
    | `None` | the scheme's own |
    | `"inter_ocular"` | between the outer corners of the eyes |
    | `"inter_pupil"` | between the centers of the eyes |
    | `"box"` | the longer side of the face box |
    | `"box_diagonal"` | the diagonal of the face box |
    | `["left_eye_1", "right_eye_1"]`, `[36, 45]` | between two points, by name or index |
    | `[["nose", "chin"], 4]` | from or to the mean of several points |
    | `{"kind": "points", "points": [36, 45]}` | as `Normalizer.from_dict` takes it |

    Args:
        normalizer: One of the above, or a `Normalizer`.
        scheme: The scheme of the points, see `as_scheme`.

    Returns:
        What `normalized_mean_error` and `normalizing_distance` take. It suits the scheme.

    Raises:
        SchemeError: If the scheme has no length of that name or no such point, or the form is none of the above. The
            message says what can be given instead.

    Example:
        >>> named_normalizer("inter_pupil", "wflw")
        Normalizer(kind='points', points=((96,), (97,)))
        >>> named_normalizer(["left_eye_1", "right_eye_1"], "300w").to_dict()
        {'kind': 'points', 'points': [36, 45]}
    """
    scheme = as_scheme(scheme)
    if normalizer is None:
        return scheme.normalizer
    if isinstance(normalizer, str):
        return _by_name(normalizer, scheme)
    if not isinstance(normalizer, Normalizer):
        try:
            normalizer = (
                Normalizer.from_dict(normalizer) if isinstance(normalizer, Mapping) else _between(normalizer, scheme)
            )
        except ValueError as error:
            raise SchemeError(str(error)) from None
    beyond = [point for end in normalizer.points for point in end if not 0 <= point < scheme.num_landmarks]
    if beyond:
        raise SchemeError(f"The normalizer names point {beyond[0]}, outside 0 to {scheme.num_landmarks - 1}.")
    return normalizer


def _by_name(name: str, scheme: LandmarkScheme) -> Normalizer:
    known = known_normalizers(scheme)
    if name in known:
        return known[name]
    if name not in _MEASURED_BETWEEN:
        raise SchemeError(
            f"No normalizer is called {name!r}; there are inter_ocular, inter_pupil, box and box_diagonal, or give "
            "two points as a list, by name or index."
        )
    raise SchemeError(
        f"The scheme {scheme.name} does not say which points are its {_MEASURED_BETWEEN[name]}, so {name!r} is "
        f"unknown; give {', '.join(known)}, or two points as a list, by name or index."
    )


def _between(ends: Any, scheme: LandmarkScheme) -> Normalizer:
    ends = ends.tolist() if isinstance(ends, np.ndarray) else ends
    if not isinstance(ends, Sequence) or len(ends) != 2:
        raise SchemeError(f"A normalizer is a name, two points as a list, or a mapping with its kind, not {ends!r}.")
    several = [list(end) if isinstance(end, Sequence) and not isinstance(end, str) else [end] for end in ends]
    points = tuple(tuple(_index(point, scheme) for point in end) for end in several)
    return Normalizer("points", points)


def _index(point: Any, scheme: LandmarkScheme) -> Any:
    """Look a point's name up; an index is left for `Normalizer` to check."""
    if not isinstance(point, str):
        return point
    if point not in scheme.point_names:
        named = (
            f"its points are {', '.join(scheme.point_names[:6])} and so on" if scheme.point_names else "it names none"
        )
        raise SchemeError(f"The scheme {scheme.name} has no point {point!r}; {named}, and an index will do.")
    return scheme.point_names.index(point)
