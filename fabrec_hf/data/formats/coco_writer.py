"""A writer of COCO keypoints: one JSON file and one folder of pictures a split, which `coco` reads back."""

import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import datasets
import numpy as np
from tqdm.auto import tqdm

from ...errors import SchemeError
from ...model.known_schemes import LandmarkScheme
from ..face_table import encoded_images
from .annotated import labels_of
from .coco import BOX_OF_POINTS
from .export_folder import check_columns, new_split
from .layouts import canonical_split, encoded_picture, file_stem, points_of, scalar_columns, shortest


__all__ = ["export_coco"]

logger = logging.getLogger(__name__)


def export_coco(
    dataset: datasets.Dataset,
    scheme: LandmarkScheme,
    folder: str | os.PathLike,
    split: str,
    progress: bool = False,
) -> int:
    """Write faces as `annotations/SPLIT.json` and `images/SPLIT/`, which `coco.open_source` reads back as they are.

    Pictures are written as they are stored, numbers so that they give the same float32. Columns of one value a row go
    to the annotation's `attributes`; other lists find no place in this format. A face without a box gets the tight one
    of its points, as the format wants one, and `"bbox_of_points": true`, so that it is read back as none. A face
    without any annotated point is written, but by the rules of the format its readers take it for not annotated.

    Args:
        dataset: Faces with `image` and `landmarks`.
        scheme: Their mark-up, for the names of the points and the skeleton.
        folder: Where to write. What there is of other splits stays.
        split: What to call them.
        progress: Show a progress bar.

    Returns:
        The number of faces written.

    Raises:
        DataError: If there are no landmarks, a picture cannot be read, or the folder holds this split already.
        SchemeError: If a face has another number of points than the scheme.
    """
    split, folder = canonical_split(split, "export_coco"), Path(folder)
    check_columns(dataset, "COCO keypoints")
    pictures, target = f"images/{split}", f"annotations/{split}.json"
    with new_split(folder, pictures, target) as drafts:
        drafts[pictures].mkdir()
        with drafts[target].open("w", encoding="utf-8") as stream:
            _write(stream, dataset, scheme, drafts[pictures], split, progress)
    return len(dataset)


def _write(
    stream: TextIO, dataset: datasets.Dataset, scheme: LandmarkScheme, folder: Path, split: str, progress: bool
) -> None:
    """Write pictures into the folder and annotations to the stream, one at a time."""
    category = {
        "id": 1,
        "name": "face",
        "supercategory": "person",
        "keypoints": list(labels_of(scheme)),
        "skeleton": [[first + 1, second + 1] for first, second in scheme.edges],
    }
    columns, images, unlabeled = scalar_columns(dataset.features), [], 0
    rows = encoded_images(dataset)
    stream.write(f'{{"categories": {_json([category])},\n"annotations": [')
    for index, row in enumerate(tqdm(rows, desc="writing", unit="face", disable=not progress)):
        content, suffix, (width, height) = encoded_picture(row["image"], index)
        file_name = file_stem(index, row.get("name")) + suffix
        (folder / file_name).write_bytes(content)
        images.append({"id": index + 1, "file_name": f"{split}/{file_name}", "width": width, "height": height})
        annotation = _annotation(row, index + 1, scheme, columns)
        unlabeled += not annotation["num_keypoints"]
        stream.write(f"{',' if index else ''}\n{_json(annotation)}")
    stream.write(f'],\n"images": {_json(images)}}}\n')
    if unlabeled:
        logger.warning(
            "%d faces of %s have no annotated point: readers of COCO files leave them out.", unlabeled, split
        )


def _annotation(row: Mapping[str, Any], number: int, scheme: LandmarkScheme, columns: Sequence[str]) -> dict[str, Any]:
    points = points_of(row["landmarks"])
    if points.shape != (scheme.num_landmarks, 2):
        raise SchemeError(f"Row {number - 1} has {len(points)} points, but {scheme.name} has {scheme.num_landmarks}.")
    visible = row.get("visibility") or [True] * len(points)
    keypoints: list[float] = []
    for (x, y), seen in zip(points, visible, strict=True):
        known = bool(np.isfinite(x) and np.isfinite(y))
        keypoints += [shortest(x), shortest(y), 2 if seen else 1] if known else [0, 0, 0]
    annotation: dict[str, Any] = {
        "id": number,
        "image_id": number,
        "category_id": 1,
        "iscrowd": 0,
        "num_keypoints": sum(v > 0 for v in keypoints[2::3]),
        "keypoints": keypoints,
    }
    box = [shortest(value) for value in (_tight_box(points) if row.get("box") is None else row["box"])]
    annotation |= {"bbox": box, "area": box[2] * box[3], "segmentation": []}
    if row.get("box") is None:
        annotation[BOX_OF_POINTS] = True
    annotation["attributes"] = {name: _plain(row[name]) for name in columns if row[name] is not None}
    return annotation


def _tight_box(points: np.ndarray) -> np.ndarray:
    """Return the box of the annotated points, which readers of the format want in place of none."""
    known = points[np.isfinite(points).all(axis=1)]
    return np.concatenate([known.min(axis=0), np.ptp(known, axis=0)]) if len(known) else np.zeros(4, dtype=np.float32)


def _plain(value: Any) -> Any:
    """Return a value that JSON can hold: null for a number that is not finite."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
