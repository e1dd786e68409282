"""A look at somebody's own annotations before they are used: which way up, how large, and what their boxes mean.

These are properties of a set, not of a face: they are decided once, before anything is written, for all splits.
"""

import io
import math
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from PIL import Image

from ..errors import DataError
from ..model.face_detection import default_face_detector
from ..model.geometry import box_overlap
from ..model.known_schemes import get_scheme
from .face_boxes import (
    BoxPlan,
    Relation,
    box_of_points,
    is_tight,
    nearest_box,
    points_box,
    share_inside,
    upright_boxes,
)
from .picture_sizes import PictureSize, read_size, upright_box, upright_points
from .source import FaceSource, Row, describe


__all__ = ["Survey", "survey_source"]

WHOLE_FACE_SCHEMES = ("300w", "wflw")
"""Schemes whose points span the face from brow to chin: their tight box is the box that the paper crops by."""

SAMPLE = 48  # faces whose boxes are looked at; the detector takes a twentieth of a second for each
_LARGEST_SHIFT = 0.08  # of the box, between the centers
_LARGEST_RATIO = (
    1.12  # between the sides; mmpose's margin of 10 % on each side, which costs a fifth more error, is more
)
_CONSISTENT = 0.8  # overlap after conversion from which the relation is good enough to convert by
_REFERENCES = {"points": "the tight boxes of the points", "detector": "the face detector's"}
_CORNER_GAIN = 0.1  # overlap that reading boxes as corners must add


@dataclass(frozen=True)
class Survey:
    """What a look at a set of faces has shown.

    Attributes:
        boxes: What becomes of their boxes.
        orientation: What points refer to: the `upright` picture, the picture as it is `stored`, or, face by face,
            the one that holds them (`each`).
        notes: What a person should know, a sentence each.
    """

    boxes: BoxPlan
    orientation: str = "upright"
    notes: tuple[str, ...] = ()

    def upright(self, row: Row, size: PictureSize) -> Row:
        """Return a row with box and points of the upright picture, its box with width and height."""
        box, points = row["box"], row.get("landmarks")
        if box is not None and self.boxes.corners:
            box = _from_corners(box)
        if size.turned and self._is_stored(points, size):
            box = None if box is None else upright_box(box, size)
            points = None if points is None else upright_points(points, size).astype(np.float32)
        return row | {"box": box} | ({} if points is None else {"landmarks": points})

    def _is_stored(self, points: np.ndarray | None, size: PictureSize) -> bool:
        if self.orientation == "each":
            return points is not None and not size.holds(points) and size.holds(points, upright=False)
        return self.orientation == "stored"


def survey_source(source: FaceSource, boxes: str | None = None) -> Survey:
    """Look through the annotations of all splits, and at the pictures of some faces.

    Args:
        source: The opened data. One that is not `unverified` is taken for what it says.
        boxes: One of `BOX_RULES`; `auto` by default.

    Returns:
        What to do with the boxes and the points.

    Raises:
        DataError: If the annotations state other sizes for the pictures than these have.
    """
    rule, whole_face = boxes or "auto", is_whole_face(source)
    missing = rule if rule not in ("auto", "given") else _default_rule(source)
    plan = BoxPlan(missing, "replace" if rule in ("points", "detector") else "keep")
    if not source.unverified:
        return Survey(plan)
    faces = _Faces(source)
    orientation, notes = faces.orientation()
    survey = Survey(plan, orientation, tuple(notes))
    if rule != "auto":
        return survey
    plan = replace(plan, tight_is_none=not whole_face)
    measured, said = _measure(faces.sample, replace(survey, boxes=plan), whole_face)
    return replace(survey, boxes=measured, notes=(*survey.notes, *said))


def is_whole_face(source: FaceSource) -> bool:
    """Whether the points of a set span the face, so that their tight box is the box that it is found by."""
    names = {get_scheme(name).point_names for name in WHOLE_FACE_SCHEMES}
    return source.scheme is not None and source.scheme.point_names in names


def _default_rule(source: FaceSource) -> str:
    if source.scheme is None:
        return "none"
    return "points" if is_whole_face(source) else "detector"


class _Faces:
    """The rows of all splits, run through once: the sizes of their pictures, and a sample of them."""

    def __init__(self, source: FaceSource):
        self.source = source
        self.sample: list[tuple[Row, PictureSize]] = []
        self.unclear: list[tuple[Row, PictureSize]] = []  # turned pictures whose points fit both ways
        self.only_stored = self.only_upright = self.stated_upright = 0
        other_sizes, misfits = [], 0
        draw, seen = random.Random(0), 0
        for row in (row for split in source.splits for row in source.rows(split, extras=True)):
            try:
                size = read_size(row["image"])
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
                continue  # a missing picture is for the one who reads it to report
            mistake = _size_mistake(row, size)
            if mistake:
                other_sizes.append(mistake)
                misfits += "landmarks" in row and not size.holds(row["landmarks"])
            self._look_at_orientation(row, size)
            seen += 1
            place = len(self.sample) if seen <= SAMPLE else draw.randrange(seen)
            if place < SAMPLE:
                self.sample[place : place + 1] = [(row, size)]
        # Tools other than those of COCO write sizes that nobody reads: there they count if the points agree with them.
        if other_sizes and (source.kind == "coco" or misfits):
            files = ", ".join(file.name for file in source.files[:3])
            raise DataError(
                f"{files}: {other_sizes[0]} ({len(other_sizes):,} of {seen:,} faces). The points do not belong to "
                "these pictures: name the folder of those that were annotated (images), or resize the annotations."
            )

    def _look_at_orientation(self, row: Row, size: PictureSize) -> None:
        points = row.get("landmarks")
        if size.orientation < 5 or points is None or np.isnan(points).all():
            return
        upright, stored = size.holds(points), size.holds(points, upright=False)
        self.only_upright += upright and not stored
        self.only_stored += stored and not upright
        self.stated_upright += _stated(row) == size.upright
        if upright and stored and len(self.unclear) < SAMPLE // 3:
            self.unclear.append((row, size))

    def orientation(self) -> tuple[str, list[str]]:
        """Say what points of turned pictures refer to, and in words where that is not the upright picture."""
        if self.only_stored and self.only_upright:
            return "each", [
                f"The points of {self.only_stored:,} faces fit only the picture as it is stored, without its EXIF "
                f"orientation, those of {self.only_upright:,} only the upright one: each was turned as it needs."
            ]
        if self.only_stored:
            return "stored", [
                f"The points of {self.only_stored:,} faces fit only the picture as it is stored, without its EXIF "
                "orientation: the points of all turned pictures were turned with these."
            ]
        if not (self.only_upright or self.stated_upright) and self._faces_are_stored():
            return "stored", [
                "In pictures that EXIF turns, the points lie on the faces only where they are turned too: they were."
            ]
        return "upright", []

    def _faces_are_stored(self) -> bool:
        """Whether most unclear points lie on upright faces after turning, and not where they are.

        A quarter turn of a centered face leaves its points on the face, so that its two sides decide where the scheme
        tells them: they lie beside each other in an upright face, and above each other in one that lies.
        """
        votes = 0
        pairs = np.array(self.source.scheme.flip_pairs if self.source.scheme else (), dtype=int).reshape(-1, 2)
        for row, size in self.unclear:
            points, boxes = row["landmarks"], _detect(row)
            on_face = [box_of_points(boxes, p) is not None for p in (upright_points(points, size), points)]
            across = np.abs(_mean_of_known(points[pairs[:, 1]] - points[pairs[:, 0]]))
            if np.isfinite(across).all() and across.max() > 1.5 * across.min():
                lying = across[1] > across[0]
                on_face = [on_face[0] and lying, on_face[1] and not lying]
            votes += int(on_face[0]) - int(on_face[1])
        return votes > 0


def _mean_of_known(vectors: np.ndarray) -> np.ndarray:
    """Return the mean of those of (N, 2) vectors that are known; NaN where none is."""
    known = vectors[~np.isnan(vectors).any(axis=1)]
    return known.mean(axis=0) if len(known) else np.full(2, np.nan)


def _stated(row: Row) -> tuple[int, int] | None:
    """Return the size that the annotations state for a picture, if they do."""
    width, height = row.get("stated_size") or (None, None)
    numbers = all(isinstance(v, (int, float)) and 0 < v <= sys.float_info.max for v in (width, height))
    return (round(width), round(height)) if numbers else None  # type: ignore[arg-type]


def _size_mistake(row: Row, size: PictureSize) -> str | None:
    """Say how the stated size of a picture contradicts both sizes that it has; a pixel is no contradiction."""
    stated = _stated(row)
    if stated is None or any(np.abs(np.subtract(stated, real)).max() <= 1 for real in (size.stored, size.upright)):
        return None
    picture = Path(describe(row)).name
    text = f"{picture} is said to have {stated[0]} x {stated[1]} pixels, and has {size.upright[0]} x {size.upright[1]}"
    for real in (size.upright, size.stored):
        factors = np.divide(stated, real)
        if abs(math.log(factors[0] / factors[1])) < 0.02:
            return f"{text}, so it was resized by a factor of {1 / factors.mean():.3g}"
    return f"{text}, which is another shape"


def _measure(sample: Sequence[tuple[Row, PictureSize]], survey: Survey, whole_face: bool) -> tuple[BoxPlan, list[str]]:
    """Compare given boxes with those that faces are found by, and say what to do with them."""
    plan, notes = survey.boxes, list[str]()
    given = [(row, size) for row, size in sample if row["box"] is not None]
    if not given:
        return plan, notes
    targets = [_target(survey.upright(row, size), whole_face) for row, size in given]
    if _are_corners(given, targets, survey):
        plan = replace(plan, corners=True)
        survey = replace(survey, boxes=plan)
        notes.append("The boxes are corners (x1, y1, x2, y2): only so do they lie on the faces. They are read so.")
    rows = [survey.upright(row, size) for row, size in given]
    tight = [plan.tight_is_none and "landmarks" in row and is_tight(row["box"], row["landmarks"]) for row in rows]
    pairs: dict[bool, list[tuple[np.ndarray, np.ndarray]]] = {True: [], False: []}
    for row, (target, found), is_of_points in zip(rows, targets, tight, strict=True):
        if found and target is not None:
            pairs[is_of_points].append((row["box"], target))
    if pairs[True] and not _Comparison(pairs[True]).differ:  # points that nobody named span a face all the same
        plan, pairs[False] = replace(plan, tight_is_none=False), pairs[True] + pairs[False]
    elif any(tight):
        notes.append(
            f"The boxes of {sum(tight)} of {len(tight)} faces are just those of their points, which do not span a "
            f"face: they count as not given ({plan.missing} instead)."
        )
    if not pairs[False]:
        return plan, notes
    changes, said = _compare(_Comparison(pairs[False]), "points" if whole_face else "detector")
    return replace(plan, **changes), [*notes, said]


def _target(row: Row, whole_face: bool) -> tuple[np.ndarray | None, bool]:
    """Return the box that a face should have, and whether it is that; else, to tell corners, that of its points."""
    points = row.get("landmarks")
    if whole_face:
        return (None, False) if points is None or np.isnan(points).any() else (points_box(points), True)
    if points is None or np.isnan(points).all():
        nearest = nearest_box(_detect(row), row["box"])
        return nearest, nearest is not None
    found = box_of_points(_detect(row), points)
    return (points_box(points), False) if found is None else (found, True)


def _are_corners(
    given: Sequence[tuple[Row, PictureSize]], targets: Sequence[tuple[np.ndarray | None, bool]], survey: Survey
) -> bool:
    if any((row["box"][2:] <= row["box"][:2]).any() for row, _ in given):
        return False
    as_corners = replace(survey, boxes=replace(survey.boxes, corners=True))
    gains, inside, leaving = [], [], []
    for (row, size), (target, _) in zip(given, targets, strict=True):
        if target is not None:
            box, corners = survey.upright(row, size)["box"], as_corners.upright(row, size)
            gains.append(box_overlap(corners["box"], target) - box_overlap(box, target))
            points = corners.get("landmarks")
            inside.append(1.0 if points is None or np.isnan(points).all() else share_inside(points, corners["box"]))
            ends = [b[:2] + b[2:] for b in (box, corners["box"])]
            leaves, stays = [(end > np.multiply(size.upright, 1.05)).any() for end in ends]
            leaving.append(leaves and not stays)
    if not gains or median(inside) <= 0.9:
        return False
    return median(gains) > _CORNER_GAIN or (median(gains) > 0 and sum(leaving) > len(leaving) / 2)


class _Comparison:
    """Given boxes beside those that the same faces are found by."""

    def __init__(self, pairs: Sequence[tuple[np.ndarray, np.ndarray]]):
        given, wanted = (np.array(boxes, dtype=np.float64) for boxes in zip(*pairs, strict=True))
        centers = [boxes[:, :2] + boxes[:, 2:] / 2 for boxes in (given, wanted)]
        shift = np.median((centers[1] - centers[0]) / given[:, 2:], axis=0).round(4)
        ratio = np.median(wanted[:, 2:] / given[:, 2:], axis=0).round(4)
        self.relation = Relation((float(shift[0]), float(shift[1])), (float(ratio[0]), float(ratio[1])), len(pairs))
        self.overlap = median(box_overlap(*pair) for pair in pairs)
        self.converted = median(box_overlap(self.relation.convert(box), wanted) for box, wanted in pairs)
        off = np.abs(shift).max() > _LARGEST_SHIFT or np.abs(np.log(ratio)).max() > math.log(_LARGEST_RATIO)
        # One or two faces say little of a median; only boxes that are beside the face show.
        self.differ = bool(off) if len(pairs) >= 3 else self.overlap < 0.5


def _compare(found: _Comparison, reference: str) -> tuple[dict[str, Any], str]:
    """Say whether the given boxes are to be kept, converted or replaced: the changes to the plan, and a sentence."""
    faces = f"{found.relation.faces} face" + ("s" if found.relation.faces > 1 else "")
    if not found.differ:
        kept = f"The given boxes are kept: on {faces} they overlap {found.overlap:.0%} with {_REFERENCES[reference]}."
        return {"relation": found.relation}, kept
    wider, higher = found.relation.ratio
    how = (
        f"On {faces} the given boxes overlap only {found.overlap:.0%} with {_REFERENCES[reference]}, by which faces "
        f"are found: these are {wider:.2f} times as wide and {higher:.2f} times as high"
    )
    if reference == "detector" and found.relation.faces >= 5 and found.converted >= _CONSISTENT:
        said = f"{how}. They are converted by this, which gives {found.converted:.0%}; --boxes given keeps them."
        return {"given": "convert", "relation": found.relation}, said
    said = f"{how}. The latter are taken; --boxes given keeps them."
    return {"given": "replace", "missing": reference, "relation": found.relation}, said


def _detect(row: Row) -> np.ndarray:
    """Find the faces of a row's picture; (N, 4) boxes of the upright picture."""
    content = row["image"]["bytes"]
    with Image.open(row["image"]["path"] if content is None else io.BytesIO(content)) as image:
        return upright_boxes(default_face_detector()(image))


def _from_corners(box: np.ndarray) -> np.ndarray | None:
    size = box[2:] - box[:2]
    return np.concatenate([box[:2], size]).astype(np.float32) if (size > 0).all() else None
