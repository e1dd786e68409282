"""Landmark schemes: what the points of a face are called, how they mirror, and how an error on them is normalized.

A scheme is data. It travels in a checkpoint's `config.json`, so that a model for a user's own points needs nothing
else to be flipped, scored, drawn or evaluated. Five schemes are built in:

| name | points | mark-up | normalizer |
|---|---|---|---|
| `300w` | 68 | iBUG | outer eye corners, 36 and 45 |
| `wflw` | 98 | WFLW (Wu et al. 2018) | outer eye corners, 60 and 72 |
| `aflw` | 19 | AFLW, ears left out (Zhu et al. 2016) | side of the square face box |
| `mtfl` | 5 | MTFL (Zhang et al. 2014) | eyes, 0 and 1 |
| `mesh` | 128 | vertices of MediaPipe's face mesh | pupils, 56 and 65 |

"Left" and "right" in point names are those of the picture, as in the published lists of AFLW and MTFL: a `left_eye`
has the smaller x on an upright face.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from .landmark_scheme import LandmarkScheme, Normalizer, infer_flip_pairs
from .mesh_scheme import mesh_scheme


__all__ = [
    "LandmarkScheme",
    "Normalizer",
    "conversions_of",
    "convert_landmarks",
    "get_scheme",
    "infer_flip_pairs",
    "known_name",
    "known_normalizers",
    "sources_of",
]


def _run(name: str, count: int, middle: str | None = None, reverse: bool = False) -> list[str]:
    """Name a row of points that crosses the face from left to right: outermost number 1, an odd row has a middle."""
    half = range(1, count // 2 + 1)
    row = [f"left_{name}_{i}" for i in half] + ([middle or f"{name}_middle"] if count % 2 else [])
    row += [f"right_{name}_{i}" for i in reversed(half)]
    return row[::-1] if reverse else row


def _chain(*points: int, closed: bool = False) -> list[tuple[int, int]]:
    ends = points[1:] + points[:1] if closed else points[1:]
    return list(zip(points, ends, strict=False))


def _span(first: int, last: int) -> tuple[int, ...]:
    return tuple(range(first, last + 1))


def _scheme_300w() -> LandmarkScheme:
    eyes = [f"left_eye_{i}" for i in (1, 2, 3, 4, 5, 6)] + [f"right_eye_{i}" for i in (4, 3, 2, 1, 6, 5)]
    names = _run("jaw", 17, "chin") + _run("brow", 10)
    names += ["nose_bridge_1", "nose_bridge_2", "nose_bridge_3", "nose_tip"] + _run("nostril", 5, "nose_base") + eyes
    names += _run("upper_lip", 7) + _run("lower_lip", 5, reverse=True)
    names += _run("inner_upper_lip", 5) + _run("inner_lower_lip", 3, reverse=True)
    edges = _chain(*_span(0, 16)) + _chain(*_span(17, 21)) + _chain(*_span(22, 26))
    edges += _chain(*_span(27, 30)) + _chain(*_span(31, 35))
    for loop in (_span(36, 41), _span(42, 47), _span(48, 59), _span(60, 67)):
        edges += _chain(*loop, closed=True)
    return LandmarkScheme(
        name="300w",
        num_landmarks=68,
        point_names=tuple(names),
        flip_pairs=infer_flip_pairs(names),
        normalizer=Normalizer("points", ((36,), (45,))),
        parts={
            "jaw": _span(0, 16),
            "brows": _span(17, 26),
            "nose": _span(27, 35),
            "eyes": _span(36, 47),
            "mouth": _span(48, 67),
        },
        edges=tuple(edges),
    )


def _scheme_wflw() -> LandmarkScheme:
    eyes = [f"left_eye_{i}" for i in _span(1, 8)] + [f"right_eye_{i}" for i in (5, 4, 3, 2, 1, 8, 7, 6)]
    names = _run("jaw", 33, "chin")
    # A brow is a loop: five points along its upper rim from the left, four back along its lower rim.
    names += [f"left_brow_{i}" for i in _span(1, 9)] + [f"right_brow_{i}" for i in (5, 4, 3, 2, 1, 9, 8, 7, 6)]
    names += ["nose_bridge_1", "nose_bridge_2", "nose_bridge_3", "nose_tip"] + _run("nostril", 5, "nose_base") + eyes
    names += _run("upper_lip", 7) + _run("lower_lip", 5, reverse=True)
    names += _run("inner_upper_lip", 5) + _run("inner_lower_lip", 3, reverse=True)
    names += ["left_pupil", "right_pupil"]
    edges = _chain(*_span(0, 32)) + _chain(*_span(51, 54)) + _chain(*_span(55, 59))
    for loop in (_span(33, 41), _span(42, 50), _span(60, 67), _span(68, 75), _span(76, 87), _span(88, 95)):
        edges += _chain(*loop, closed=True)
    return LandmarkScheme(
        name="wflw",
        num_landmarks=98,
        point_names=tuple(names),
        flip_pairs=infer_flip_pairs(names),
        normalizer=Normalizer("points", ((60,), (72,))),
        parts={
            "jaw": _span(0, 32),
            "brows": _span(33, 50),
            "nose": _span(51, 59),
            "eyes": _span(60, 75) + (96, 97),
            "mouth": _span(76, 95),
        },
        edges=tuple(edges),
    )


def _scheme_aflw() -> LandmarkScheme:
    thirds = [("left", ("left", "center", "right")), ("right", ("left", "center", "right"))]
    names = [f"{side}_{part}_{third}" for part in ("brow", "eye") for side, row in thirds for third in row]
    names += ["nose_left", "nose_center", "nose_right", "mouth_left", "mouth_center", "mouth_right", "chin"]
    edges = [edge for first in (0, 3, 6, 9, 12, 15) for edge in _chain(*_span(first, first + 2))]
    return LandmarkScheme(
        name="aflw",
        num_landmarks=19,
        point_names=tuple(names),
        flip_pairs=infer_flip_pairs(names),
        normalizer=Normalizer("box"),
        parts={
            "brows": _span(0, 5),
            "eyes": _span(6, 11),
            "nose": _span(12, 14),
            "mouth": _span(15, 17),
            "chin": (18,),
        },
        edges=tuple(edges),
    )


def _scheme_mtfl() -> LandmarkScheme:
    names = ("left_eye", "right_eye", "nose", "left_mouth_corner", "right_mouth_corner")
    return LandmarkScheme(
        name="mtfl",
        num_landmarks=5,
        point_names=names,
        flip_pairs=infer_flip_pairs(names),
        normalizer=Normalizer("points", ((0,), (1,))),
        parts={"eyes": (0, 1), "nose": (2,), "mouth": (3, 4)},
        edges=((3, 4),),
    )


_SCHEMES = {
    scheme.name: scheme for scheme in (_scheme_300w(), _scheme_wflw(), _scheme_aflw(), _scheme_mtfl(), mesh_scheme())
}


def get_scheme(name: str) -> LandmarkScheme:
    """Return a built-in scheme: `"300w"`, `"wflw"`, `"aflw"`, `"mtfl"` or `"mesh"`.

    Raises:
        ValueError: If there is no scheme of that name.
    """
    if name not in _SCHEMES:
        raise ValueError(f"No landmark scheme is called {name!r}; built in are {', '.join(_SCHEMES)}.")
    return _SCHEMES[name]


_EYES_300W = [[36, 37, 38, 39, 40, 41], [42, 43, 44, 45, 46, 47]]

# The lengths that papers call by name, as the two ends that each mark-up measures them between. "inter_ocular" joins
# the outer corners of the eyes, "inter_pupil" their centers: a point of its own, or the mean of the points around.
_EYE_LENGTHS: dict[str, dict[str, Any]] = {
    "300w": {"inter_ocular": (36, 45), "inter_pupil": _EYES_300W},
    "wflw": {"inter_ocular": (60, 72), "inter_pupil": (96, 97)},
    "aflw": {"inter_ocular": (6, 11), "inter_pupil": (7, 10)},
    "mtfl": {"inter_pupil": (0, 1)},
    "mesh": {"inter_ocular": (64, 57), "inter_pupil": (65, 56)},
}


def known_normalizers(scheme: LandmarkScheme) -> dict[str, Normalizer]:
    """Return the normalizers that can be called by name for a scheme.

    A scheme is known by the names of its points, and not by its own name: what a user calls `"300w"` may be another
    mark-up, and the mark-up of 300-W may come under another name.

    Args:
        scheme: Any scheme, also a user's own.

    Returns:
        `"box"` and `"box_diagonal"` for every scheme, and for the built-in mark-ups `"inter_ocular"` and
        `"inter_pupil"` as far as they have such points (the five of `mtfl` have no eye corners).
    """
    known = {kind: Normalizer(kind) for kind in ("box", "box_diagonal")}
    lengths = _EYE_LENGTHS.get(known_name(scheme) or "", {})
    return known | {length: Normalizer("points", ends) for length, ends in lengths.items()}


def known_name(scheme: LandmarkScheme) -> str | None:
    """Return the name of the built-in scheme whose points these are, by their names; None for other points."""
    return next((name for name, known in _SCHEMES.items() if scheme.point_names == known.point_names), None)


# Where each of the 68 iBUG points stands among the 98 of WFLW: every second point of the jaw, the upper rim of the
# brows, the whole nose, six of the eight points of an eye, the whole mouth. Pupils and lower brow rims go.
_WFLW_TO_300W = [
    *range(0, 33, 2),
    *range(33, 38),
    *range(42, 47),
    *range(51, 60),
    *(60, 61, 63, 64, 65, 67),
    *(68, 69, 71, 72, 73, 75),
    *range(76, 96),
]
_NOSE_AND_MOUTH_300W = [30, 48, 54]


def _wflw_to_300w(points):
    return points[..., _WFLW_TO_300W, :]


def _300w_to_mtfl(points):
    join = torch.cat if isinstance(points, torch.Tensor) else np.concatenate
    return join([points[..., _EYES_300W, :].mean(-2), points[..., _NOSE_AND_MOUTH_300W, :]], -2)


_CONVERSIONS: dict[tuple[str, str], tuple[Callable, ...]] = {
    ("wflw", "300w"): (_wflw_to_300w,),
    ("300w", "mtfl"): (_300w_to_mtfl,),
    ("wflw", "mtfl"): (_wflw_to_300w, _300w_to_mtfl),
}


def conversions_of(scheme: LandmarkScheme) -> tuple[LandmarkScheme, ...]:
    """Return the built-in schemes of fewer points that `convert_landmarks` makes of a scheme's landmarks."""
    return tuple(_SCHEMES[target] for source, target in _CONVERSIONS if source == known_name(scheme))


def sources_of(scheme: LandmarkScheme) -> tuple[LandmarkScheme, ...]:
    """Return the built-in schemes of more points whose landmarks `convert_landmarks` makes a scheme's of."""
    return tuple(_SCHEMES[source] for source, target in _CONVERSIONS if target == known_name(scheme))


def convert_landmarks(
    points: np.ndarray | torch.Tensor, source: str | LandmarkScheme, target: str | LandmarkScheme
) -> np.ndarray | torch.Tensor:
    """Convert landmarks to a mark-up with fewer points: 98 (`wflw`) to 68 (`300w`) to 5 (`mtfl`).

    The 68 points are a choice of the 98. Of the 5, the eyes are the means of the six points around each eye, the
    nose is the nose tip (30) and the mouth corners are the outer ones (48, 54).

    Args:
        points: Array or tensor of shape (..., L, 2), in any unit. Missing points are NaN; an eye of the 5 is NaN if
            any of its six points is.
        source: The scheme of `points`, or its name. A scheme is known by the names of its points.
        target: The scheme to convert to, or its name.

    Returns:
        Array or tensor of shape (..., L of the target, 2), of the type of `points`. `points` is not changed.

    Raises:
        ValueError: If there is no such conversion, or the shape is not that of the source scheme.
    """
    source = source if isinstance(source, LandmarkScheme) else get_scheme(source)
    target = target if isinstance(target, LandmarkScheme) else get_scheme(target)
    if not isinstance(points, torch.Tensor):
        points = np.asarray(points)
    if points.ndim < 2 or tuple(points.shape[-2:]) != (source.num_landmarks, 2):
        raise ValueError(
            f"Landmarks of {source.name} have shape (..., {source.num_landmarks}, 2), not {tuple(points.shape)}."
        )
    names = known_name(source), known_name(target)
    if source == target or (names[0] is not None and names[0] == names[1]):
        return points
    steps = _CONVERSIONS.get((names[0] or "", names[1] or ""))
    if steps is None:
        known = ", ".join(f"{first} to {second}" for first, second in _CONVERSIONS)
        raise ValueError(f"No conversion from {source.name} to {target.name}; there are {known}.")
    for step in steps:
        points = step(points)
    return points
