"""Faces from a reader to memory, without a file in between: what `fabrec fit` learns from."""

from collections.abc import Iterable, Iterator
from typing import Any

import datasets
import numpy as np
import pyarrow
from tqdm.auto import tqdm

from ..errors import DataError
from .box_rules import check_box_rule
from .face_set import FaceSet
from .found_splits import FoundSplit, describe_faces, refuse_copies
from .shards import ROW_GROUP, ShardReport, ShardSettings, arrow_table, chunks, embed_rows
from .source import FaceSource, Row, describe
from .split_names import canonical_split
from .survey import survey_source


__all__ = ["read_faces"]


def read_faces(
    source: FaceSource, split: str | None = None, boxes: str | None = None, progress: bool = False
) -> tuple[datasets.Dataset, FaceSet]:
    """Read the faces of one split as `convert_faces` would write them: the same rows, boxes and refusals.

    Pictures that are files of their own stay where they are and are named by their paths, so that a face takes a few
    kilobytes. Nothing is written, neither beside the data nor to the cache of `datasets`.

    Args:
        source: The opened data. All its splits are looked through, so that a picture in two of them is found.
        split: Which split to return. By default the only one, or `train` where there are several.
        boxes: Where the box of a face comes from, one of `BOX_RULES`; `auto` by default.
        progress: Show a progress bar where it takes more than two seconds.

    Returns:
        The rows, and what was found in all splits.

    Raises:
        DataError: If there are no landmarks or no such split, a picture cannot be read, a split is empty, or a
            picture stands in two splits.
        ValueError: If there is no such rule.
    """
    check_box_rule(boxes)
    if source.scheme is None:
        raise DataError(f"The {source.kind} data has no landmarks to learn from.")
    chosen = _choose(source, split)
    survey = survey_source(source, boxes)
    settings = ShardSettings(source.features, survey)
    tables: list[pyarrow.Table] = []
    names: dict[str, list[str]] = {}
    found: dict[str, FoundSplit] = {}
    for name in source.splits:
        report = ShardReport()
        names[name] = []
        rows = _light(source.rows(name, extras=True), settings, report)
        for group in chunks(iter(tqdm(rows, name, unit="face", delay=2, disable=not progress)), ROW_GROUP):
            names[name] += [row["name"] or describe(row) for row in group]
            if name == chosen:
                tables.append(arrow_table(group, settings.features.arrow_schema))
        found[name] = FoundSplit.checked(name, report, np.array(report.digests, dtype=np.uint64))
    if not source.split_by_face:
        advice = "convert them first with --allow-copies if you know why"
        refuse_copies(found, lambda name, face: names[name][face], advice)
    info = datasets.DatasetInfo(features=settings.features)
    faces = datasets.Dataset(pyarrow.concat_tables(tables), info=info, split=datasets.NamedSplit(chosen))
    return faces, describe_faces(source, found, survey, boxes or "auto")


def _choose(source: FaceSource, split: str | None) -> str:
    """Return the split that is meant."""
    names = list(source.splits)
    if split is None and (len(names) == 1 or "train" in names):
        return names[0] if len(names) == 1 else "train"
    if split is None:
        raise DataError(f"The {source.kind} data holds the splits {', '.join(names)}; say which one to read.")
    split = split if split in names else canonical_split(split, "split")
    if split not in names:
        raise DataError(f"The {source.kind} data has no {split} split; it has {', '.join(names)}.")
    return split


def _light(rows: Iterable[Row], settings: ShardSettings, report: ShardReport) -> Iterator[dict[str, Any]]:
    """Check and complete rows one at a time; what has a file of its own is only named by it."""
    for row in rows:
        image = row["image"]
        for whole in embed_rows([row], settings, report):
            yield whole | ({"image": image} if image["bytes"] is None else {})
