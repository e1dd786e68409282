"""The types of a landmark scheme: points, how they mirror, and how an error on them is normalized."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np


__all__ = ["LandmarkScheme", "Normalizer", "infer_flip_pairs"]


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
