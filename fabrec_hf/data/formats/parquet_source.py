"""Parquet files as a source of faces: to write them in another format, or in other shards."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet

from ...errors import DataError
from ...model.geometry import EXTEND_BOTTOM, EXTEND_TOP
from ...model.known_schemes import LandmarkScheme
from ..face_set import find_face_set
from ..parquet import check_schemas, find_splits
from ..scheme_files import infer_scheme, load_scheme
from ..source import FaceSource, Row, face_features


__all__ = ["open_source"]


def open_source(path: Path, scheme: str | LandmarkScheme | None = None, split: str | None = None) -> FaceSource:
    """Open Parquet files of faces in the layout of `load_faces`.

    Args:
        path: A Parquet file, or a folder of them.
        scheme: The mark-up, a name or a scheme file; the one in `face_set.json` by default.
        split: What to call the split where the files do not say; `"train"` by default.

    Raises:
        DataError: If there is no Parquet file, or it has no `image` column.
    """
    known = find_face_set(path)
    found = find_splits(path)
    order = list(found)
    if known and set(found) <= set(known.splits):
        order = [name for name in known.splits if name in found]
    files = {name or split or "train": found[name] for name in order}
    first = next(iter(files.values()))[0]
    check_schemas([file for group in files.values() for file in group], ("image",))
    schema = pyarrow.parquet.read_schema(first)
    features = datasets.Features.from_arrow_schema(schema)
    count = _num_landmarks(features, first)
    mark_up = load_scheme(scheme) or (known.scheme if known else None)
    if count is not None and mark_up is None:
        mark_up = infer_scheme("custom", num_landmarks=count)
    common = set(face_features(1, visibility=True))
    return FaceSource(
        kind=known.kind if known else "parquet",
        splits={name: partial(_rows, tuple(map(str, group))) for name, group in files.items()},
        scheme=mark_up if count is not None else None,
        files=tuple(file for group in files.values() for file in group),
        extend_top=known.extend_top if known else EXTEND_TOP,
        extend_bottom=known.extend_bottom if known else EXTEND_BOTTOM,
        visibility="visibility" in features,
        attributes={name: kind for name, kind in features.items() if name not in common},
    )


def _num_landmarks(features: datasets.Features, file: Path) -> int | None:
    """Read the number of points off the first row; None for faces without landmarks."""
    if "landmarks" not in features:
        return None
    batch = next(pyarrow.parquet.ParquetFile(file).iter_batches(1, columns=["landmarks"]), None)
    landmarks = batch["landmarks"][0].as_py() if batch is not None else None
    if landmarks is None:
        raise DataError(f"{file} has no landmarks in its first row.")
    return len(landmarks)


def _rows(files: tuple[str, ...]) -> Iterator[Row]:
    for file in files:
        number = -1
        # Without pre_buffer, or all that was read stays in memory.
        for batch in pyarrow.parquet.ParquetFile(file, pre_buffer=False).iter_batches(100):
            for row in batch.to_pylist():
                number += 1
                if not isinstance(row["image"], dict) or not (row["image"].get("bytes") or row["image"].get("path")):
                    raise DataError(f"Row {number} of {file} has no picture.")
                if "landmarks" in row:  # a point may be null, or its coordinates
                    if row["landmarks"] is None:
                        raise DataError(f"Row {number} of {file} has no landmarks.")
                    points = [point or (None, None) for point in row["landmarks"]]
                    row["landmarks"] = np.array(points, dtype=np.float32)
                row["name"] = row.get("name") or f"{Path(file).name}, row {number}"
                yield {name: value for name, value in row.items() if name != "split"}
