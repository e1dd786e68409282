"""Landmark schemes: what the points of a face are called, how they mirror, and how an error on them is normalised.

A scheme is data. It travels in a checkpoint's `config.json`, so that a model for a user's own points needs nothing
else to be flipped, scored, drawn or evaluated. Four schemes are built in:

| name | points | mark-up | normaliser |
|---|---|---|---|
| `300w` | 68 | iBUG | outer eye corners, 36 and 45 |
| `wflw` | 98 | WFLW (Wu et al. 2018) | outer eye corners, 60 and 72 |
| `aflw` | 19 | AFLW, ears left out (Zhu et al. 2016) | side of the square face box |
| `mtfl` | 5 | MTFL (Zhang et al. 2014) | eyes, 0 and 1 |

"Left" and "right" in point names are those of the picture, as in the published lists of AFLW and MTFL: a `left_eye`
has the smaller x on an upright face.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch


__all__ = ["LandmarkScheme", "Normalizer", "convert_landmarks", "get_scheme", "infer_flip_pairs"]


def _index(value: Any, what: str) -> int:
    """Return `value` as an int, refusing what only looks like one (True, 3.0, "3")."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise ValueError(f"{what} must be an integer, not {value!r}.")
    return int(value)


def _items(value: Any, what: str) -> list[Any]:
    """Return `value` as a list, refusing a string, a number and a mapping."""
    if isinstance(value, (str, Mapping)) or not isinstance(value, Iterable):
        raise ValueError(f"{what} must be a list, not {value!r}.")
    return list(value)


def _pairs(value: Any, what: str) -> tuple[tuple[int, int], ...]:
    pairs = []
    for pair in _items(value, what):
        pair = _items(pair, f"Each of {what}")
        if len(pair) != 2:
            raise ValueError(f"Each of {what} must hold two points, not {pair!r}.")
        pairs.append((_index(pair[0], f"A point of {what}"), _index(pair[1], f"A point of {what}")))
    return tuple(pairs)


def _known_keys(values: Any, allowed: Sequence[str], what: str) -> None:
    if not isinstance(values, Mapping):
        raise ValueError(f"{what} must be a mapping with the keys {', '.join(allowed)}, not {values!r}.")
    unknown = sorted(str(key) for key in values if key not in allowed)
    if unknown:
        raise ValueError(f"{what} does not know {', '.join(unknown)}; its keys are {', '.join(allowed)}.")


@dataclass(frozen=True)
class Normalizer:
    """The length that a face's landmark error is divided by.

    Args:
        kind: `"points"`: the distance between two points of the ground truth. `"box"`: the side of the square face
            box, max(width, height), which the paper uses for AFLW. `"box_diagonal"`: the diagonal of the face box.
        points: For `"points"` the two ends. Each is the index of a point, or a list of indices whose mean is taken
            (the six points of an eye give the inter-pupil distance of the 68-point mark-up). Empty otherwise.

    Raises:
        ValueError: If the kind is unknown or the points do not suit it.
    """

    kind: str = "box"
    points: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self):
        """Check the fields and turn what came from JSON into tuples."""
        if self.kind not in ("points", "box", "box_diagonal"):
            raise ValueError(f"A normalizer's kind is 'points', 'box' or 'box_diagonal', not {self.kind!r}.")
        ends = []
        for end in _items(self.points, "A normalizer's points"):
            end = _items(end, "An end of a normalizer") if not isinstance(end, (int, np.integer)) else [end]
            ends.append(tuple(_index(point, "A point of a normalizer") for point in end))
        if self.kind != "points" and ends:
            raise ValueError(f"A normalizer of kind {self.kind!r} takes no points.")
        if self.kind == "points" and (len(ends) != 2 or not all(ends) or set(ends[0]) & set(ends[1])):
            raise ValueError("A normalizer of kind 'points' needs two different ends, for example [36, 45].")
        object.__setattr__(self, "points", tuple(ends))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; an end of one point is written as that point."""
        if self.kind != "points":
            return {"kind": self.kind}
        return {"kind": self.kind, "points": [end[0] if len(end) == 1 else list(end) for end in self.points]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Normalizer":
        """Build a normalizer from what `to_dict` returned.

        Raises:
            ValueError: If a key is unknown or a value invalid.
        """
        _known_keys(values, ("kind", "points"), "A normalizer")
        return cls(**values)


@dataclass(frozen=True)
class LandmarkScheme:
    """A landmark mark-up: how many points, and everything that follows from which point is which.

    Args:
        name: What the scheme is called, for example `"300w"`.
        num_landmarks: Number of points L, at least 1. All indices below are 0-based, in [0, L).
        point_names: Nothing, or one distinct name a point.
        flip_pairs: Pairs of points that change places when the picture is mirrored. No point stands in two pairs; a
            point in none (the nose tip) mirrors to itself.
        normalizer: The length that errors are divided by; a mapping is taken as `Normalizer.from_dict` does.
        parts: Named groups of points that are scored on their own. Groups may overlap.
        edges: Pairs of points to join when a face is drawn.

    Raises:
        ValueError: If anything of this contradicts itself. The message names the points.
    """

    name: str
    num_landmarks: int
    point_names: tuple[str, ...] = ()
    flip_pairs: tuple[tuple[int, int], ...] = ()
    normalizer: Normalizer = field(default_factory=Normalizer)
    parts: dict[str, tuple[int, ...]] = field(default_factory=dict)
    edges: tuple[tuple[int, int], ...] = ()

    def __post_init__(self):
        """Check the fields and turn what came from JSON into tuples."""
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(f"A landmark scheme needs a name, not {self.name!r}.")
        if _index(self.num_landmarks, "num_landmarks") < 1:
            raise ValueError(f"num_landmarks must be at least 1, not {self.num_landmarks}.")
        normalizer = self.normalizer
        if not isinstance(normalizer, Normalizer):
            normalizer = Normalizer.from_dict(normalizer)
        if not isinstance(self.parts, Mapping):
            raise ValueError(f"parts must be a mapping from a name to points, not {self.parts!r}.")
        parts = {
            str(part): tuple(_index(point, f"A point of part {part!r}") for point in _items(points, f"Part {part!r}"))
            for part, points in self.parts.items()
        }
        values = {
            "num_landmarks": int(self.num_landmarks),
            "point_names": tuple(_items(self.point_names, "point_names")),
            "flip_pairs": _pairs(self.flip_pairs, "flip_pairs"),
            "normalizer": normalizer,
            "parts": parts,
            "edges": _pairs(self.edges, "edges"),
        }
        for key, value in values.items():  # lists from JSON become tuples
            object.__setattr__(self, key, value)
        self._check_names()
        self._check_points()

    def _check_names(self) -> None:
        if not all(isinstance(name, str) and name for name in self.point_names):
            raise ValueError("Every point name must be a string that is not empty.")
        if self.point_names and len(self.point_names) != self.num_landmarks:
            raise ValueError(f"{len(self.point_names)} point names were given for {self.num_landmarks} landmarks.")
        if len(set(self.point_names)) < len(self.point_names):
            twice = next(name for name in self.point_names if self.point_names.count(name) > 1)
            raise ValueError(f"Point names must differ, but {twice!r} stands twice.")

    def _check_points(self) -> None:
        used = {
            "flip_pairs": [point for pair in self.flip_pairs for point in pair],
            "normalizer": [point for end in self.normalizer.points for point in end],
            "edges": [point for edge in self.edges for point in edge],
            **{f"part {part!r}": list(points) for part, points in self.parts.items()},
        }
        for what, points in used.items():
            for point in points:
                if not 0 <= point < self.num_landmarks:
                    raise ValueError(f"{what} names point {point}, outside 0 to {self.num_landmarks - 1}.")
        for part, points in self.parts.items():
            if not points or len(set(points)) < len(points):
                raise ValueError(f"Part {part!r} must hold at least one point, and none of them twice.")
        paired: set[int] = set()
        for pair in self.flip_pairs:
            if pair[0] == pair[1]:
                raise ValueError(f"flip_pairs mirrors point {pair[0]} to itself; leave such a point out.")
            if paired & set(pair):
                raise ValueError(f"flip_pairs uses point {min(paired & set(pair))} in two pairs.")
            paired |= set(pair)

    @property
    def flip_index(self) -> list[int]:
        """The permutation that mirroring the picture applies: point i of the mirrored face is `flip_index[i]`."""
        index = list(range(self.num_landmarks))
        for first, second in self.flip_pairs:
            index[first], index[second] = second, first
        return index

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that JSON can hold and `from_dict` takes back."""
        return {
            "name": self.name,
            "num_landmarks": self.num_landmarks,
            "point_names": list(self.point_names),
            "flip_pairs": [list(pair) for pair in self.flip_pairs],
            "normalizer": self.normalizer.to_dict(),
            "parts": {part: list(points) for part, points in self.parts.items()},
            "edges": [list(edge) for edge in self.edges],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "LandmarkScheme":
        """Build a scheme from what `to_dict` returned, or from a user's scheme file.

        Raises:
            ValueError: If a key is unknown or missing, or a value invalid.
        """
        _known_keys(values, [entry.name for entry in fields(cls)], "A landmark scheme")
        missing = [key for key in ("name", "num_landmarks") if key not in values]
        if missing:
            raise ValueError(f"A landmark scheme needs {' and '.join(missing)}.")
        return cls(**values)


def _mirror_name(name: str) -> str:
    """Exchange left and right wherever they stand in a name, keeping the case."""
    swap = {"left": "right", "right": "left", "Left": "Right", "Right": "Left", "LEFT": "RIGHT", "RIGHT": "LEFT"}
    return re.sub("left|right", lambda match: swap.get(match[0], match[0]), name, flags=re.IGNORECASE)


# A side as a word of its own: "left_eye", "LeftEye", "eyeLeft", "lefteye", but not "cleft" or "bright".
_SIDE_WORD = re.compile(r"(?<![A-Za-z])(?:[Ll]eft|[Rr]ight|LEFT|RIGHT)|(?<=[a-z])(?:Left|Right)")


def infer_flip_pairs(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """Pair the points whose names differ only in that left and right are exchanged.

    Args:
        names: One name a point, for example `["left_eye", "right_eye", "nose"]`.

    Returns:
        The pairs, each with its smaller index first, in rising order. Names without a side are in no pair.

    Raises:
        ValueError: If a name speaks of a side and its counterpart is missing: mirrored pictures would then teach the
            model a wrong point.
    """
    names = list(names)
    position = {name: i for i, name in enumerate(names)}
    if len(position) < len(names):
        raise ValueError("Point names must differ for flip pairs to be inferred from them.")
    pairs = []
    for i, name in enumerate(names):
        mirrored = _mirror_name(name)
        if mirrored == name:
            continue
        if mirrored in position:
            if i < position[mirrored]:
                pairs.append((i, position[mirrored]))
        elif _SIDE_WORD.search(name):
            raise ValueError(f"Point {name!r} has no {mirrored!r} to mirror to; rename it or give flip_pairs.")
    return tuple(pairs)


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


_SCHEMES = {scheme.name: scheme for scheme in (_scheme_300w(), _scheme_wflw(), _scheme_aflw(), _scheme_mtfl())}


def get_scheme(name: str) -> LandmarkScheme:
    """Return a built-in scheme: `"300w"`, `"wflw"`, `"aflw"` or `"mtfl"`.

    Raises:
        ValueError: If there is no scheme of that name.
    """
    if name not in _SCHEMES:
        raise ValueError(f"No landmark scheme is called {name!r}; built in are {', '.join(_SCHEMES)}.")
    return _SCHEMES[name]


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
_EYES_300W = [[36, 37, 38, 39, 40, 41], [42, 43, 44, 45, 46, 47]]
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


def convert_landmarks(
    points: np.ndarray | torch.Tensor, source: str | LandmarkScheme, target: str | LandmarkScheme
) -> np.ndarray | torch.Tensor:
    """Convert landmarks to a mark-up with fewer points: 98 (`wflw`) to 68 (`300w`) to 5 (`mtfl`).

    The 68 points are a choice of the 98. Of the 5, the eyes are the means of the six points around each eye, the
    nose is the nose tip (30) and the mouth corners are the outer ones (48, 54).

    Args:
        points: Array or tensor of shape (..., L, 2), in any unit. Missing points are NaN; an eye of the 5 is NaN if
            any of its six points is.
        source: The scheme of `points`, or its name.
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
    if source == target:
        return points
    steps = _CONVERSIONS.get((source.name, target.name))
    if steps is None:
        known = ", ".join(f"{first} to {second}" for first, second in _CONVERSIONS)
        raise ValueError(f"No conversion from {source.name} to {target.name}; there are {known}.")
    for step in steps:
        points = step(points)
    return points
