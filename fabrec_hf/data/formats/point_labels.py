"""Which point of a scheme a label is that somebody gave in an annotation tool."""

import os
from collections.abc import Sequence

from ...errors import SchemeError
from ...model.known_schemes import LandmarkScheme
from ..scheme_files import load_scheme, match_scheme


__all__ = ["place_labels"]

_SHOWN = 12  # names of points that an error lists


def place_labels(
    seen: Sequence[str],
    declared: Sequence[str],
    spec: str | os.PathLike | LandmarkScheme | None,
    where: str | os.PathLike,
) -> tuple[LandmarkScheme, dict[str, int], list[str]]:
    """Find the scheme that labels of points belong to, and which label is which of its points.

    Labels are the names of the points, or their numbers. Numbers count from 0, or from 1 where the last number is
    there and 0 is not. Points of the scheme that no label names are not annotated.

    Args:
        seen: The labels of annotated points, in order of appearance.
        declared: The labels that the file declares, in order.
        spec: What the user says of the scheme, as `load_scheme` takes it; None: one is made from the labels.
        where: The file, for errors.

    Returns:
        The scheme, the index of its point for every label, and what a person should know.

    Raises:
        SchemeError: If a label is none of the scheme's points.
    """
    labels = list(dict.fromkeys([*declared, *seen]))
    scheme = load_scheme(spec)
    if scheme is None:
        numbered = all(map(str.isdecimal, labels))
        labels = sorted(labels, key=int) if numbered else labels
        made, _ = match_scheme(None, where, () if numbered else labels, len(labels))
        return made, {label: index for index, label in enumerate(labels)}, []
    if set(seen) <= set(scheme.point_names):
        return scheme, {label: scheme.point_names.index(label) for label in seen}, []
    if all(map(str.isdecimal, seen)):
        return scheme, *_numbered(seen, scheme, where)
    if not scheme.point_names:
        match_scheme(scheme, where, labels, len(labels))  # as many labels as points: their order is the scheme's
        return scheme, {label: index for index, label in enumerate(labels)}, []
    unknown = next(label for label in seen if label not in scheme.point_names)
    raise SchemeError(
        f"{where} has a point {unknown!r}, which the scheme {scheme.name} does not know; it has {_list(scheme)}. "
        "Rename it in the tool, or name it so in a scheme file (scheme)."
    )


def _numbered(
    labels: Sequence[str], scheme: LandmarkScheme, where: str | os.PathLike
) -> tuple[dict[str, int], list[str]]:
    """Return the index of every label that is a number, and a sentence if they count from 1."""
    numbers, count = {label: int(label) for label in labels}, scheme.num_landmarks
    first = int(count in numbers.values() and 0 not in numbers.values())
    wrong = next((number for number in numbers.values() if number >= count + first), None)
    if wrong is not None:
        raise SchemeError(f"{where} has a point of the number {wrong}, but {scheme.name} has {count} points.")
    remark = f"The points are numbered from 1 to {count}: number 1 is the first of the scheme {scheme.name}."
    return {label: number - first for label, number in numbers.items()}, [remark] * first


def _list(scheme: LandmarkScheme) -> str:
    rest = scheme.num_landmarks - _SHOWN
    return ", ".join(scheme.point_names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
