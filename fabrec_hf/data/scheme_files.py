"""Landmark schemes from files, and schemes for data that comes with nothing but its points.

A scheme file is YAML or JSON with the fields of `LandmarkScheme`. Only `name` and the points are needed; wherever a
point is meant, its name does as well as its index:

    name: cat
    point_names: [left_eye, right_eye, nose]
    normalizer: {kind: points, points: [left_eye, right_eye]}
    parts: {eyes: [left_eye, right_eye]}
    edges: [[left_eye, nose], [nose, right_eye]]
"""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ..common.drafts import draft_of
from ..errors import SchemeError
from ..model.known_schemes import LandmarkScheme, get_scheme, infer_flip_pairs


__all__ = ["infer_scheme", "load_scheme", "match_scheme", "write_scheme"]

logger = logging.getLogger(__name__)

BUILT_IN = ("300w", "wflw", "aflw", "mtfl", "mesh")

_YAML, _JSON = (".yaml", ".yml"), (".json",)


def load_scheme(spec: str | os.PathLike | LandmarkScheme | None) -> LandmarkScheme | None:
    """Return a built-in scheme, or read one from a file.

    Args:
        spec: A built-in name (`"300w"`, `"wflw"`, `"aflw"`, `"mtfl"`, `"mesh"`) or a YAML or JSON file, in which
            points may be given by name. `num_landmarks` may be left out where there are `point_names`; without
            `flip_pairs` the names that differ in left and right only are paired (`flip_pairs: []` says that there are
            none). A scheme and None are returned as they are.

    Raises:
        SchemeError: If there is no such scheme or file, or the file is not a valid scheme.
    """
    if spec is None or isinstance(spec, LandmarkScheme):
        return spec
    name = os.fspath(spec)
    if name in BUILT_IN:
        return get_scheme(name)
    path = Path(name)
    if path.suffix.lower() not in _YAML + _JSON:
        raise SchemeError(
            f"No landmark scheme is called {name!r}; give {', '.join(BUILT_IN)}, or a scheme file that "
            "ends in .yaml, .yml or .json."
        )
    try:
        return _scheme(_parse(path))
    except OSError as error:
        raise SchemeError(f"The scheme file {path} cannot be read: {error.strerror}.") from error
    except (ValueError, TypeError, yaml.YAMLError, RecursionError) as error:
        raise SchemeError(f"{path}: {' '.join(str(error).split())}") from error


def write_scheme(scheme: LandmarkScheme, path: str | os.PathLike) -> None:
    """Write a scheme to a file that `load_scheme` reads back as the same scheme.

    Args:
        scheme: The scheme.
        path: The file, `.yaml`, `.yml` or `.json`. It appears whole or not at all.

    Raises:
        SchemeError: If the file would have another suffix.
    """
    path = Path(path)
    if path.suffix.lower() in _JSON:
        text = json.dumps(scheme.to_dict(), indent=2, ensure_ascii=False) + "\n"
    elif path.suffix.lower() in _YAML:
        text = yaml.safe_dump(scheme.to_dict(), sort_keys=False, default_flow_style=None, allow_unicode=True)
    else:
        raise SchemeError(f"A scheme file ends in .yaml, .yml or .json, not {path.name!r}.")
    with draft_of(path) as draft:
        draft.write_text(text, encoding="utf-8")


def infer_scheme(
    name: str, point_names: Sequence[str] | None = None, num_landmarks: int | None = None, **known: Any
) -> LandmarkScheme:
    """Make a scheme for data that has none: its errors are divided by the size of the face box.

    It never takes the data for one of a built-in scheme because of the number of its points.

    Args:
        name: What to call it.
        point_names: The names in the data, if it has any; flip pairs follow from left and right in them. Where they
            do not, since a side has no counterpart, there are no flip pairs and a warning.
        num_landmarks: Number of points; needed without names.
        **known: Other fields of `LandmarkScheme` that the data tells, such as `edges`.

    Raises:
        SchemeError: If what is known contradicts itself.
    """
    names = tuple(point_names or ())
    count = len(names) if num_landmarks is None else num_landmarks
    try:
        if "flip_pairs" not in known and all(isinstance(point, str) for point in names):
            known["flip_pairs"] = _flip_pairs_or_none(names)
        return LandmarkScheme(name=name, num_landmarks=count, point_names=names, **known)
    except ValueError as error:
        raise SchemeError(str(error)) from error


def match_scheme(
    spec: str | os.PathLike | LandmarkScheme | None,
    where: str | os.PathLike,
    point_names: Sequence[str] = (),
    num_landmarks: int | None = None,
    **known: Any,
) -> tuple[LandmarkScheme, list[int]]:
    """Find the scheme of data with points, and how the data's points are to be put into the scheme's order.

    Points whose names are those of the scheme are put into its order. Other names, or none, mean that the data's
    order is the scheme's.

    Args:
        spec: What the user says of the scheme, as `load_scheme` takes it; None: `infer_scheme` makes one, "custom".
        where: The file, for error messages.
        point_names: Names of the points in the data, if it has any.
        num_landmarks: Number of points in the data; needed without names.
        **known: Other fields that the data tells, for a scheme that is made.

    Returns:
        The scheme, and for each of its points the index of that point in the data.

    Raises:
        SchemeError: If the scheme is invalid or does not belong to the points.
    """
    scheme = load_scheme(spec)
    names = list(point_names)
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise SchemeError(f"{where} has two points of the name {twice!r}.")
    if scheme is None:
        try:
            scheme = infer_scheme("custom", names, num_landmarks, **known)
        except SchemeError as error:
            raise SchemeError(f"{where}: {error}") from error
        return scheme, list(range(scheme.num_landmarks))
    count = len(names) if num_landmarks is None else num_landmarks
    if count != scheme.num_landmarks:
        raise SchemeError(f"{where} has {count} points a face, but the scheme {scheme.name} {scheme.num_landmarks}.")
    if names and sorted(names) == sorted(scheme.point_names):
        return scheme, [names.index(point) for point in scheme.point_names]
    for index, point in enumerate(scheme.point_names):
        if point in names and names.index(point) != index:
            unknown = next(other for other in names if other not in scheme.point_names)
            raise SchemeError(
                f"{where} has the points of the scheme {scheme.name} in another order and partly under other names, "
                f"such as {unknown!r}; rename them in a scheme file."
            )
    return scheme, list(range(count))


def _flip_pairs_or_none(names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    try:
        return infer_flip_pairs(names)
    except ValueError as error:
        if len(set(names)) == len(names):
            logger.warning("Mirrored pictures cannot be learned from: %s", error)
        return ()


def _parse(path: Path) -> Any:
    text = path.read_text(encoding="utf-8-sig")
    return json.loads(text) if path.suffix.lower() in _JSON else yaml.safe_load(text)


def _scheme(values: Any) -> LandmarkScheme:
    """Build a scheme from the values of a file, with indices in the place of names."""
    if not isinstance(values, Mapping):
        raise ValueError(f"A landmark scheme is a mapping with name, point_names and so on, not {values!r}.")
    values = {key: value for key, value in values.items() if value is not None}
    names = values.get("point_names", [])
    if "point_names" in values and isinstance(names, list):
        values.setdefault("num_landmarks", len(names))
    index = {name: i for i, name in enumerate(names) if isinstance(name, str)} if isinstance(names, list) else {}
    for key in ("flip_pairs", "edges"):
        if key in values:
            values[key] = _indices(values[key], index, key)
    if isinstance(values.get("normalizer"), Mapping) and "points" in values["normalizer"]:
        points = _indices(values["normalizer"]["points"], index, "normalizer")
        values["normalizer"] = {**values["normalizer"], "points": points}
    if isinstance(values.get("parts"), Mapping):
        values["parts"] = {part: _indices(points, index, f"part {part!r}") for part, points in values["parts"].items()}
    scheme = LandmarkScheme.from_dict(values)
    if "flip_pairs" in values or not names:
        return scheme
    return LandmarkScheme.from_dict(values | {"flip_pairs": infer_flip_pairs(scheme.point_names)})


def _indices(value: Any, index: Mapping[str, int], what: str) -> Any:
    """Replace the names in nested lists by indices; what is no name stays for the scheme itself to check."""
    if isinstance(value, list):
        return [_indices(item, index, what) for item in value]
    if not isinstance(value, str):
        return value
    if value not in index:
        known = f"there are {', '.join(index)}" if index else "point_names gives none"
        raise ValueError(f"{what} names point {value!r}, but {known}.")
    return index[value]
