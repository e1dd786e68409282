"""Shapes that people draw in annotation tools, and how those of one picture become faces.

A tool knows points, boxes, outlines and skeletons. Which points are one face shows by a group, by a box around them,
or because there is nothing else in the picture.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ...errors import DataError


__all__ = ["Box", "Outline", "MarkedPicture", "Point", "ShapeFace", "Skeleton", "shape_faces", "object_labels"]

Rectangle = tuple[float, float, float, float]
"""x, y, width, height in pixels."""


@dataclass(frozen=True)
class Point:
    """One point; without a label it counts by its place among the points of its face."""

    label: str | None
    x: float
    y: float
    group: Hashable = None
    visible: bool = True


@dataclass(frozen=True)
class Box:
    """A rectangle, as x, y, width, height."""

    rectangle: Rectangle
    group: Hashable = None


@dataclass(frozen=True)
class Outline:
    """Several points in order, whose label says what they are together."""

    label: str
    places: tuple[tuple[float, float], ...]
    group: Hashable = None
    visible: bool = True


@dataclass(frozen=True)
class Skeleton:
    """Several points with labels, and the label of what they are together."""

    label: str
    points: tuple[Point, ...]
    group: Hashable = None


@dataclass
class MarkedPicture:
    """What was drawn in a picture.

    Attributes:
        name: The picture as the tool calls it.
        where: The file and the picture, for errors.
        size: (width, height) that the tool states.
        split: The split that the tool states.
    """

    name: str
    where: str
    size: tuple[float | None, float | None] = (None, None)
    split: str | None = None
    points: list[Point] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)
    outlines: list[Outline] = field(default_factory=list)
    skeletons: list[Skeleton] = field(default_factory=list)


@dataclass(frozen=True)
class ShapeFace:
    """The points of a face by their labels, and its box if there is one."""

    points: Mapping[str, Point]
    box: Rectangle | None = None


def object_labels(pictures: Iterable[MarkedPicture]) -> tuple[str, list[str]]:
    """Say what carries the faces of a set, and the labels of the objects that it has of these.

    Returns:
        `"skeletons"`, else `"points"`, else `"outlines"`, whichever there are, or `""`; and the labels, none for
        single points.
    """
    skeletons: dict[str, None] = {}
    outlines: dict[str, None] = {}
    points = False
    for picture in pictures:
        skeletons |= dict.fromkeys(skeleton.label for skeleton in picture.skeletons)
        outlines |= dict.fromkeys(outline.label for outline in picture.outlines)
        points = points or bool(picture.points)
    if skeletons:
        return "skeletons", list(skeletons)
    if points:
        return "points", []
    return ("outlines", list(outlines)) if outlines else ("", [])


def shape_faces(
    picture: MarkedPicture, carrier: str, category: str | None, advice: str, left_out: Counter[str]
) -> list[ShapeFace]:
    """Return the faces of a picture.

    Args:
        picture: What was drawn.
        carrier: What carries the faces of the set, as `object_labels` says; there must be something.
        category: The label of the objects that are faces; None: single points.
        advice: What to do in the tool where points cannot be told apart.
        left_out: Counts what is not used.

    Raises:
        DataError: If a face has a point twice.
    """
    groups: dict[Hashable, list[Point]] = {}
    boxes: dict[Hashable, list[Box]] = defaultdict(list)
    for box in picture.boxes:
        if box.group is not None:
            boxes[box.group].append(box)
    whole: list[tuple[Hashable, list[Point]]] = []
    free_boxes = [box for box in picture.boxes if box.group is None]
    if carrier == "points":
        groups = _part_groups(_group(picture), boxes)
        left_out["shapes"] += len(picture.outlines)
    else:
        objects = [_whole(shape) for shape in getattr(picture, carrier) if shape.label == category]
        whole = [(group, points) for group, points in objects if points]
        left_out["faces"] += len(objects) - len(whole)
        left_out["shapes"] += len(picture.skeletons) + len(picture.outlines) + len(picture.points) - len(objects)
    faces, used = [], set[int]()
    for group, points in [*groups.items(), *whole]:
        found = _box_of(group, points, boxes, free_boxes, used)
        used.update([id(found)] if found else [])
        faces.append(ShapeFace(_labeled(points, picture.where, advice), found.rectangle if found else None))
    left_out["boxes"] += sum(id(box) not in used for box in picture.boxes)
    return faces


def _box_of(
    group: Hashable,
    points: Sequence[Point],
    boxes: Mapping[Hashable, Sequence[Box]],
    free: Sequence[Box],
    used: set[int],
) -> Box | None:
    """Return the box of a face: the one it is named after, one of its group, or a free one around it."""
    if isinstance(group, _InBox):
        return group.box
    own = boxes.get(group, ()) if group is not None else ()
    if len(own) == 1:
        return own[0]
    index = _around(points, own or free, used)
    return None if index is None else (own or free)[index]


@dataclass(frozen=True, eq=False)
class _InBox:
    """The group of the points that lie in a box which no group tells from others."""

    box: Box


def _whole(shape: Skeleton | Outline) -> tuple[Hashable, list[Point]]:
    if isinstance(shape, Skeleton):
        return shape.group, list(shape.points)
    return shape.group, [Point(str(i), x, y, visible=shape.visible) for i, (x, y) in enumerate(shape.places)]


def _group(picture: MarkedPicture) -> dict[Hashable, list[Point]]:
    """Part single points into faces: by their groups, else by the nearest box, else all are one face."""
    free = [box for box in picture.boxes if box.group is None]
    names = {id(box): _InBox(box) for box in free}
    groups: dict[Hashable, list[Point]] = defaultdict(list)
    for point in picture.points:
        group = point.group
        if group is None and picture.boxes:
            box = min(picture.boxes, key=lambda box: _nearness(point, box))
            group = names.get(id(box), box.group)
        groups[group].append(point)
    return dict(groups)


def _part_groups(
    groups: Mapping[Hashable, list[Point]], boxes: Mapping[Hashable, Sequence[Box]]
) -> dict[Hashable, list[Point]]:
    """Part a group by its boxes where it has several and its points stand in it several times, too.

    People draw two faces under one number. Where every point is there once, it is one face with a box too many.
    """
    parted: dict[Hashable, list[Point]] = {}
    for group, points in groups.items():
        own = boxes.get(group, ()) if group is not None else ()
        if len(own) < 2 or len({point.label for point in points}) == len(points):
            parted[group] = points
            continue
        names = {id(box): _InBox(box) for box in own}
        for point in points:
            parted.setdefault(names[id(min(own, key=lambda box: _nearness(point, box)))], []).append(point)
    return parted


def _nearness(point: Point, box: Box) -> tuple[float, float]:
    """Return how far a point lies outside a box, and of boxes that hold it how large they are."""
    x, y, width, height = box.rectangle
    across, down = max(x - point.x, point.x - x - width, 0), max(y - point.y, point.y - y - height, 0)
    return across**2 + down**2, width * height


def _around(points: Sequence[Point], boxes: Sequence[Box], used: set[int]) -> int | None:
    """Return the smallest box that holds the middle of the points, if there is one."""
    middle = Point(None, sum(p.x for p in points) / len(points), sum(p.y for p in points) / len(points))
    found = [(*_nearness(middle, box), i) for i, box in enumerate(boxes) if id(box) not in used]
    return next((index for outside, _, index in sorted(found) if outside == 0), None)


def _labeled(points: Sequence[Point], where: str, advice: str) -> dict[str, Point]:
    """Return the points of a face by label; those without a label are numbered in their order."""
    named = [point for point in points if point.label is not None]
    if named and len(named) < len(points):
        raise DataError(f"{where}: some points have a label and others none; label all of them.")
    found: dict[str, Point] = {}
    for index, point in enumerate(points):
        label = str(index) if point.label is None else point.label
        if label in found:
            raise DataError(f"{where}: the point {label!r} stands twice in one face; {advice}.")
        found[label] = point
    return found
