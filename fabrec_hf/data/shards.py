"""One shard of a conversion: rows and their pictures into one Parquet file, and what was found on the way."""

import io
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image, UnidentifiedImageError

from ..common.drafts import Drafts
from ..errors import DataError
from ..model.image_inputs import is_heic
from .picture_files import NEEDS_HEIC, TOO_LARGE, heic_is_readable, pictures_note
from .picture_sizes import PictureSize, read_size
from .scheme_conversion import SchemeConversion
from .source import EXTRAS, Row, describe
from .survey import Survey


if TYPE_CHECKING:
    import datasets


__all__ = ["ROW_GROUP", "ShardReport", "ShardSettings", "arrow_table", "chunks", "embed_rows", "write_shard"]

COUNTS = (
    *("faces", "skipped", "points", "missing_points", "outside_points", "unlabelled_faces", "turned", "flat_boxes"),
    "several",
)

ROW_GROUP = 100  # the rows in memory at a time; small groups also make single pictures quick to read


@dataclass(frozen=True)
class ShardSettings:
    """How rows are written.

    Attributes:
        features: The columns.
        survey: What becomes of boxes and points.
        skip_unreadable: Leave a row out whose picture is missing or unreadable, instead of giving up.
        conversion: What becomes of the landmarks, after the boxes are made of all of them; None keeps them.
    """

    features: "datasets.Features"
    survey: Survey
    skip_unreadable: bool = False
    conversion: SchemeConversion | None = None


@dataclass
class ShardReport:
    """What the rows of a shard, or of a whole split, are like.

    Attributes:
        faces: Rows written.
        skipped: Rows left out since their picture cannot be read.
        points: Annotated points.
        missing_points: Points that are not annotated.
        outside_points: Annotated points that lie outside their picture.
        unlabelled_faces: Rows with landmarks of which none is annotated.
        boxes: How many boxes were `given`, or made up, by rule.
        turned: Pictures that EXIF turns, which a tool that ignores EXIF annotates wrongly.
        flat_boxes: Given boxes without area, which were dropped.
        several: Files that hold several pictures, of which the first is taken.
        digests: A hash of every row's picture, as stored.
    """

    faces: int = 0
    skipped: int = 0
    points: int = 0
    missing_points: int = 0
    outside_points: int = 0
    unlabelled_faces: int = 0
    boxes: Counter = field(default_factory=Counter)
    turned: int = 0
    flat_boxes: int = 0
    several: int = 0
    digests: list[int] = field(default_factory=list)

    def add(self, other: "ShardReport") -> None:
        """Count another shard's rows too; its digests are for the caller to keep."""
        for name in COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.boxes.update(other.boxes)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self) | {"boxes": dict(self.boxes)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ShardReport":
        """Build a report from what `to_dict` returned."""
        return cls(**(values | {"boxes": Counter(values["boxes"])}))


def write_shard(rows: Sequence[Row], path: Path, settings: ShardSettings) -> ShardReport:
    """Write rows to a Parquet file and a report beside it (`.json`), or return the report of an earlier time.

    Both files appear whole or not at all, the report last: where it is, the shard is done.

    Args:
        rows: What `FaceSource.rows` yields.
        path: The Parquet file.
        settings: How to write.

    Raises:
        DataError: If a picture is missing or cannot be read.
    """
    done = path.with_suffix(".json")
    if done.exists() and path.exists():
        return ShardReport.from_dict(json.loads(done.read_text()))
    report, schema = ShardReport(), settings.features.arrow_schema
    with Drafts(path.parent, path.name, done.name) as drafts:
        with pyarrow.parquet.ParquetWriter(drafts[path.name], schema) as writer:
            for start in range(0, len(rows), ROW_GROUP):
                group = list(embed_rows(rows[start : start + ROW_GROUP], settings, report))
                writer.write_table(arrow_table(group, schema))
        drafts[done.name].write_text(json.dumps(report.to_dict()))
    return report


def embed_rows(rows: Iterable[Row], settings: ShardSettings, report: ShardReport) -> Iterator[Row]:
    """Yield rows with their pictures inside and their final boxes, and count what there is.

    Args:
        rows: What `FaceSource.rows` yields, with its extras.
        settings: What becomes of them.
        report: What is counted in.

    Raises:
        DataError: If a picture is missing or cannot be read.
    """
    for row in rows:
        try:
            yield _embed(row, settings, report)
        except DataError:
            if not settings.skip_unreadable:
                raise
            report.skipped += 1


def arrow_table(rows: Sequence[Row], schema: pyarrow.Schema) -> pyarrow.Table:
    """Build the table of some rows; columns are those of the schema."""
    columns = [_column([row[name] for row in rows], schema.field(name).type) for name in schema.names]
    return pyarrow.Table.from_arrays(columns, schema=schema)


def _column(values: list, kind: pyarrow.DataType) -> pyarrow.Array:
    """Build a column; landmarks go by way of NumPy, which is many times faster than from nested lists."""
    arrays = all(isinstance(value, np.ndarray) for value in values)
    if values and arrays and pyarrow.types.is_fixed_size_list(kind):
        return _from_array(np.stack(values), kind)
    return pyarrow.array([value.tolist() if isinstance(value, np.ndarray) else value for value in values], kind)


def _from_array(values: np.ndarray, kind: pyarrow.DataType) -> pyarrow.Array:
    if not pyarrow.types.is_fixed_size_list(kind):
        return pyarrow.array(values, kind)
    inner = _from_array(values.reshape(-1, *values.shape[2:]), kind.value_type)
    return pyarrow.FixedSizeListArray.from_arrays(inner, kind.list_size)


def _embed(row: Row, settings: ShardSettings, report: ShardReport) -> Row:
    """Return a row with its picture inside and a box, and count what there is."""
    content, name = _content(row)
    size, holds_several = _size(content, name)
    width, height = size.upright
    report.flat_boxes += bool(row.get("flat_box"))
    row = settings.survey.upright({key: value for key, value in row.items() if key not in EXTRAS}, size)
    landmarks = row.get("landmarks")
    box, rule = settings.survey.boxes.box(row["box"], content, landmarks, size.upright)
    if settings.conversion is not None:
        row = settings.conversion.convert(row)
        landmarks = row["landmarks"]
    report.faces += 1
    report.boxes[rule] += 1
    report.turned += size.turned
    report.several += holds_several
    report.digests.append(int.from_bytes(blake2b(content, digest_size=8).digest(), "big"))
    if landmarks is not None:
        known = ~np.isnan(landmarks).any(axis=1)
        inside = ((landmarks > -0.5) & (landmarks < [width - 0.5, height - 0.5])).all(axis=1)
        report.points += int(known.sum())
        report.missing_points += int((~known).sum())
        report.outside_points += int((known & ~inside).sum())
        report.unlabelled_faces += not known.any()
    return row | {"image": {"bytes": content, "path": os.path.basename(name)}, "box": box}


def _content(row: Row) -> tuple[bytes, str]:
    """Return the encoded picture and what to call it in an error."""
    image = row["image"]
    if image["bytes"] is not None:
        return image["bytes"], describe(row)
    try:
        return Path(image["path"]).read_bytes(), image["path"]
    except OSError as error:
        raise DataError(f"The picture {image['path']} cannot be read: {error.strerror}.") from error


def _size(content: bytes, name: str) -> tuple[PictureSize, bool]:
    """Return the size of a picture, which must be whole, and whether its file holds others beside it."""
    if is_heic(content) and not heic_is_readable():
        raise DataError(f"The picture {name} cannot be read: {NEEDS_HEIC}.")
    try:
        with Image.open(io.BytesIO(content)) as image:
            size, holds_several = read_size(image), bool(pictures_note(image))
            image.draft("RGB", (image.width // 8, image.height // 8))  # a JPEG is read whole, and drawn small
            image.load()
    except Image.DecompressionBombError as error:
        raise DataError(f"The picture {name} cannot be read: {TOO_LARGE}.") from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise DataError(f"The picture {name} cannot be read; is it an image, and whole?") from error
    return size, holds_several


def chunks(rows: Iterator[Row], size: int) -> Iterator[list[Row]]:
    """Cut a stream of rows into lists of `size`, the last one shorter."""
    chunk: list[Row] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
