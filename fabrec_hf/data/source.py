"""What every reader of face data yields: one schema of rows, whatever its format is.

A row has these columns, in this order; a reader leaves out what its data cannot have:

| column | type | what |
|---|---|---|
| `image` | Image | the picture |
| `landmarks` | (L, 2) float32 | points in pixels of the picture, centers at integers; NaN: not annotated |
| `box` | (4,) float32 | face box (x, y, width, height), edges, in pixels; null where the source gives none |
| `visibility` | (L,) bool | false: the point is hidden but may be annotated all the same |
| `name` | string | the face within its set |
| `picture` | string | the photograph it is from: the rows of one photograph share it |
| `subset` | string | the part of the set, such as `helen_test` |
| `split` | string | the split, such as `train` |

and after them the attributes of the set, such as age or pose.
"""

import functools
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from ..errors import DataError
from ..model.known_schemes import LandmarkScheme
from .subsets import SUBSETS


__all__ = ["EXTRAS", "FaceSource", "Row", "describe", "face_features"]

EXTRAS = ("stated_size", "flat_box")
"""What a row may hold beside its columns, for those who write it: the (width, height) that the annotations state for
the picture, and whether its box had no area and was dropped."""

Row = dict[str, Any]
"""One face. A reader gives `image`, a path or as `datasets` stores it, and `name`; what it leaves out becomes null."""


def face_features(
    num_landmarks: int | None, visibility: bool = False, attributes: Mapping[str, Any] | None = None
) -> datasets.Features:
    """Return the columns of a set of faces.

    Args:
        num_landmarks: Points a face; None for faces without landmarks.
        visibility: Whether the set says which points are visible.
        attributes: Further columns and their types.
    """
    columns: dict[str, Any] = {"image": datasets.Image()}
    if num_landmarks is not None:
        point = datasets.List(datasets.Value("float32"), length=2)
        columns["landmarks"] = datasets.List(point, length=num_landmarks)
    columns["box"] = datasets.List(datasets.Value("float32"), length=4)
    if visibility:
        columns["visibility"] = datasets.List(datasets.Value("bool"), length=num_landmarks)
    columns |= {name: datasets.Value("string") for name in ("name", "picture", "subset", "split")}
    return datasets.Features(columns | dict(attributes or {}))


@dataclass(frozen=True)
class FaceSource:
    """Faces on disk as somebody published or annotated them, opened but not yet read.

    Attributes:
        kind: The format, as `fabrec convert` calls it.
        splits: For every split, a function without arguments that yields its rows in order. It must be picklable
            (a module's function or a `functools.partial` of one) and must not hold all rows in memory.
        scheme: The mark-up; None for faces without landmarks.
        files: The annotation files. Changing one makes it other data, and an interrupted conversion begins again.
        extend_top: The paper's crop rule for this set: what the crop adds above the box, as a fraction of its height.
        extend_bottom: The same below the box.
        visibility: Whether rows say which points are visible.
        attributes: Columns of this set beside the common ones, and their types.
        split_by_face: Whether the published splits part the faces of one picture, so that it may stand in both.
        unverified: Whether it comes from somebody's own tool: what its boxes mean, and which way up its pictures were
            annotated, is then looked into before it is used.
        notes: What a person should know of the annotations, a sentence each, such as how many were left out.
    """

    kind: str
    splits: Mapping[str, Callable[[], Iterable[Row]]]
    scheme: LandmarkScheme | None = None
    files: tuple[Path, ...] = ()
    extend_top: float = 0.0
    extend_bottom: float = 0.0
    visibility: bool = False
    attributes: Mapping[str, Any] = field(default_factory=dict)
    split_by_face: bool = False
    unverified: bool = False
    notes: tuple[str, ...] = ()

    @property
    def features(self) -> datasets.Features:
        """The columns of the rows."""
        count = self.scheme.num_landmarks if self.scheme else None
        return face_features(count, self.visibility, self.attributes)

    @property
    def subsets(self) -> tuple[str, ...]:
        """Names of the parts of a split that are evaluated on their own, such as `common`."""
        return tuple(SUBSETS.get(self.kind, {}))

    def rows(self, split: str, extras: bool = False) -> Iterator[Row]:
        """Yield the rows of a split or subset with all columns, `image` as `{"path": ..., "bytes": None}`.

        Args:
            split: A name in `splits` or `subsets`.
            extras: Leave what `EXTRAS` names in the rows that have it.

        Raises:
            DataError: If there is no such split or subset, or a row is not what its source promised.
        """
        subset = SUBSETS.get(self.kind, {}).get(split)
        origin = subset.split if subset else split
        if origin not in self.splits:
            known = ", ".join([*self.splits, *self.subsets])
            raise DataError(f"The {self.kind} data has no split {split!r}; it has {known}.")
        columns = self.features  # built once: it takes longer than reading a row
        for row in self.splits[origin]():
            if subset is None or subset.contains(row):
                yield self._complete(row, origin, columns, extras)

    def stamp(self, split: str) -> str:
        """Return a hash that changes when the split, a setting, an annotation file or this package changes."""
        from .. import __version__  # not at the top: the package imports what is below it

        digest = hashlib.blake2b(__version__.encode(), digest_size=8)
        rows = {name: _describe(function) for name, function in self.splits.items()}
        digest.update(repr((self.kind, split, self.scheme, rows, self.features)).encode())
        for file in self.files:
            status = os.stat(file)
            digest.update(f"{file}/{status.st_size}/{status.st_mtime_ns}".encode())
        return digest.hexdigest()

    def _complete(self, row: Row, split: str, columns: datasets.Features, extras: bool) -> Row:
        kept = {name: row[name] for name in EXTRAS if extras and name in row}
        row = {name: value for name, value in row.items() if name not in EXTRAS}
        unknown = sorted(set(row) - set(columns))
        if unknown:
            raise DataError(f"A row of the {self.kind} data has unannounced columns: {', '.join(unknown)}.")
        complete = {name: row.get(name) for name in columns}
        if not isinstance(row["image"], dict):
            complete["image"] = {"path": os.fspath(row["image"]), "bytes": None}
        complete["split"] = split
        if self.scheme:
            complete["landmarks"] = _points(row, self.scheme)
        if complete["box"] is not None:
            complete["box"] = _box(row, self.unverified)
            if extras and complete["box"] is None:
                kept["flat_box"] = True
        return complete | kept


def _describe(function: Callable) -> str:
    """Describe a function and its arguments alike in every process, which `repr` does not."""
    if isinstance(function, functools.partial):
        return f"{_describe(function.func)}{function.args}{sorted(function.keywords.items())}"
    return f"{function.__module__}.{function.__qualname__}"


def describe(row: Row) -> str:
    """Say which face a row is, for an error."""
    image = row["image"]
    path = image["path"] if isinstance(image, dict) else os.fspath(image)
    return str(path or row.get("name") or "a face without a name")


def _points(row: Row, scheme: LandmarkScheme) -> np.ndarray:
    points = np.asarray(row["landmarks"], dtype=np.float32)
    if points.shape != (scheme.num_landmarks, 2):
        raise DataError(
            f"{describe(row)} has {len(points)} annotated points, but {scheme.name} has {scheme.num_landmarks}."
        )
    return points


def _box(row: Row, forgiving: bool) -> np.ndarray | None:
    """Return a box; forgiving: one dragged to the left or upwards is turned round, a flat one is none."""
    box = np.asarray(row["box"], dtype=np.float32)
    if forgiving and box.shape == (4,) and np.isfinite(box).all():
        box = np.concatenate([box[:2] + np.minimum(box[2:], 0), np.abs(box[2:])])
        if not box[2:].all():
            return None
    if box.shape != (4,) or not np.isfinite(box).all() or (box[2:] <= 0).any():
        raise DataError(f"{describe(row)} has a box without area: {box.tolist()} as (x, y, width, height).")
    return box
