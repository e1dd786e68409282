"""Label a large data set shard by shard: faces and landmarks of every picture, in any number of processes.

A shard is a Parquet file. Its labels are a Parquet file too, which appears whole or not at all and carries a report of
what is in it: where that file is, the shard is done, so that a run that was killed goes on with the next one. The
content depends on the shard alone: not on the number of processes, and not on the number of threads.
"""

import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow
import pyarrow.parquet
import torch
from PIL import Image
from tqdm.auto import tqdm

from ..common.console import show_rate
from ..common.output_folder import write_files
from ..common.thread_stages import Stages
from ..data.face_set import FaceSet
from ..data.face_table import has_datasets
from ..data.parquet import ADVICE, find_splits, shard_name
from ..errors import DataError, ImageError
from ..model.image_inputs import Picture
from ..model.lone_threads import FACES_PER_THREAD, lone_threads
from .landmark_finder import Box, Face, Labeler


__all__ = [
    "LabelReport",
    "LabelSettings",
    "Shard",
    "find_shards",
    "finish_labels",
    "label_shards",
    "open_labels",
    "unlabeled_shards",
]

ROWS = 64  # that are read, and written, at a time
# Pictures that a GPU gets at a time.
PICTURES_PER_PASS = 32

SCORE_BINS = 20
_REPORT = b"fabrec_report"
_FEATURES = b"huggingface"


@dataclass(frozen=True)
class Shard:
    """A file to label.

    Attributes:
        source: Path or URL of the Parquet file.
        target: Name of the file of its labels.
        split: The split that it belongs to.
    """

    source: str
    target: str
    split: str


@dataclass(frozen=True)
class LabelSettings:
    """How pictures are labeled.

    Attributes:
        search: Search for the faces of pictures that come with a `box` too.
        min_score: Landmarks that score lower become NaN.
    """

    search: bool = False
    min_score: float | None = None


@dataclass
class LabelReport:
    """What was found in a shard, a split, or all of the data.

    Attributes:
        pictures: Rows read.
        faces: Rows written, one a face.
        without_face: Pictures in which no face was found.
        unreadable: Pictures that cannot be read; they are left out.
        missing_points: Landmarks left out for their score.
        score_sum: Sum over the faces of their mean scores.
        score_histogram: Faces by mean score, in equal bins from 0 to 1.
    """

    pictures: int = 0
    faces: int = 0
    without_face: int = 0
    unreadable: int = 0
    missing_points: int = 0
    score_sum: float = 0.0
    score_histogram: list[int] = field(default_factory=lambda: [0] * SCORE_BINS)

    def add(self, other: "LabelReport") -> None:
        """Count another report's pictures too."""
        for name in ("pictures", "faces", "without_face", "unreadable", "missing_points", "score_sum"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.score_histogram = [a + b for a, b in zip(self.score_histogram, other.score_histogram, strict=True)]


def find_shards(data: str | os.PathLike, split: str | None = None) -> list[Shard]:
    """List the Parquet files of a data set.

    Args:
        data: A Parquet file, a folder of them, a glob, or the name of a repository of Parquet files on the Hub, whose
            files are read where they are, one after the other.
        split: The split to label; all of them if None.

    Raises:
        DataError: If there is no such data or split, or its files are not Parquet.
    """
    name = os.fspath(data)
    if os.path.exists(name) or any(sign in name for sign in "*?["):
        found = {key or "train": [str(path) for path in paths] for key, paths in find_splits(name).items()}
    else:
        found = _repository_files(name)
    if split is not None and split not in found:
        raise DataError(f"{name} has no {split} split; it has {', '.join(found)}.")
    chosen = {key: files for key, files in found.items() if split in (None, key)}
    other = [file for files in chosen.values() for file in files if not file.endswith(".parquet")]
    if other:
        raise DataError(f"{name} holds {other[0]}, which is not Parquet: convert it with `fabrec convert`.")
    return [
        Shard(file, shard_name(key, index, len(files)), key)
        for key, files in chosen.items()
        for index, file in enumerate(files)
    ]


def _repository_files(name: str) -> dict[str, list[str]]:
    if not has_datasets():
        raise DataError(f"There is no data {name} here, and to read it from the Hub needs datasets: {ADVICE}.")
    import datasets

    try:
        files = datasets.load_dataset_builder(name).config.data_files
    except (OSError, ValueError, RuntimeError) as error:  # each layer between here and the Hub has its own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError(f"There is no data {name}, neither here nor on the Hub: {reason}") from error
    return {str(split): list(paths) for split, paths in (files or {}).items()}


def open_labels(folder: Path, shards: Sequence[Shard], finder: Labeler, settings: LabelSettings) -> list[Shard]:
    """Prepare the folder of the labels and return the shards that are still to be labeled; for one process.

    Args:
        folder: New, empty, or the folder of the same job, interrupted.
        shards: All shards.
        finder: The model.
        settings: How to label.

    Raises:
        DataError: If the folder holds something else, or labels of other data, another model or other settings.
        FabRecError: If it cannot be written to.
    """
    job = {"shards": [asdict(shard) for shard in shards], "model": finder.fingerprint(), **asdict(settings)}
    content = json.dumps(job, indent=2)
    note = folder / "job.json"
    if note.is_file():
        if note.read_text() != content:
            raise DataError(
                f"{folder} holds labels of other data, another model or other settings: name another --output_dir."
            )
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} exists and is not empty; name a new folder.")
    else:
        write_files(folder, {"job.json": content.encode()})
    (folder / "data").mkdir(exist_ok=True)
    for draft in (folder / "data").glob("*.partial"):
        draft.unlink()
    return unlabeled_shards(folder, shards)


def unlabeled_shards(folder: Path, shards: Sequence[Shard]) -> list[Shard]:
    """Return the shards of which the folder holds no labels yet."""
    return [shard for shard in shards if not (folder / "data" / shard.target).exists()]


def label_shards(
    shards: Sequence[Shard],
    folder: Path,
    finder: Labeler,
    settings: LabelSettings,
    progress: bool = False,
    is_over: Callable[[int], bool] = lambda labeled: False,
) -> None:
    """Label shards and write `data/TARGET` in the folder of the labels.

    Every row of the labels is a face: the columns of its picture's row, with `landmarks` (L, 2), `box` and `scores`
    (L,) put in or replaced. A picture whose row has a `box` is one face, unless `settings.search`; in the others faces
    are searched for.

    Args:
        shards: The shards of this process.
        folder: The folder, opened by `open_labels`.
        finder: The model.
        settings: How to label.
        progress: Show a progress bar.
        is_over: Given how many shards are labeled, whether to leave out the others; asked after each but the last.

    Raises:
        DataError: If a shard cannot be read or has no `image` column.
    """
    with tqdm(unit="picture", disable=not progress) as bar:
        faces = 0
        for number, shard in enumerate(shards, start=1):
            if number > 1 and is_over(number - 1):
                break
            bar.set_description(f"shard {number} of {len(shards)}")
            for report in _label_shard(shard, folder / "data" / shard.target, finder, settings):
                faces += report.faces
                show_rate(bar, faces)
                bar.update(report.pictures)


def finish_labels(folder: Path, shards: Sequence[Shard], finder: Labeler) -> dict[str, LabelReport]:
    """Sum up what all processes have written: `summary.json`, `face_set.json` and the card; for one process.

    Returns:
        A report of each split.

    Raises:
        DataError: If a shard has not been labeled.
    """
    reports: dict[str, LabelReport] = {}
    for shard in shards:
        path = folder / "data" / shard.target
        if not path.exists():
            raise DataError(f"{path} is missing: run the same command again.")
        metadata = pyarrow.parquet.read_metadata(path).metadata
        reports.setdefault(shard.split, LabelReport()).add(LabelReport(**json.loads(metadata[_REPORT])))
    counts = {split: asdict(report) for split, report in reports.items()}
    total = LabelReport()
    for report in reports.values():
        total.add(report)
    mean = total.score_sum / total.faces if total.faces else None
    summary = {"model": finder.name, "shards": len(shards), **asdict(total), "mean_score": mean, "splits": counts}
    processor = finder.processor
    FaceSet("labels", finder.scheme, processor.extend_top, processor.extend_bottom, counts).write(folder)
    files = {"summary.json": json.dumps(summary, indent=2) + "\n", "README.md": _card(finder, reports)}
    write_files(folder, {name: text.encode() for name, text in files.items()})
    return reports


def _card(finder: Labeler, reports: dict[str, LabelReport]) -> str:
    files = "\n".join(f"  - split: {split}\n    path: data/{split}-*.parquet" for split in reports)
    lines = [
        f"| {split} | {report.pictures:,} | {report.faces:,} | {report.without_face:,} | {report.unreadable:,} |"
        for split, report in reports.items()
    ]
    return (
        f"---\ntags: [face, landmarks]\nconfigs:\n- config_name: default\n  data_files:\n{files}\n---\n\n"
        f"# Faces labeled by `{finder.name}`\n\nNo person has checked these landmarks; `scores` says how sure the "
        "model was of each. The license is that of the original pictures: state it here before you publish "
        "anything.\n\n"
        "| split | pictures | faces | without a face | unreadable |\n|---|---:|---:|---:|---:|\n"
        + "\n".join(lines)
        + "\n"
    )


@dataclass(frozen=True)
class _Batch:
    """Some rows on their way through the stages; pictures that cannot be read are None."""

    rows: pyarrow.RecordBatch
    images: Sequence[Any] = ()
    boxes: Sequence[Sequence[Box]] = ()
    faces: Sequence[Sequence[Face]] = ()


def _label_shard(shard: Shard, target: Path, finder: Labeler, settings: LabelSettings) -> Iterator[LabelReport]:
    """Label a shard, rows by rows; yields what was found in them."""
    total, draft = LabelReport(), target.with_suffix(".partial")
    try:
        with fsspec.open(shard.source, "rb") as file:
            # Without pre_buffer, or all that was read stays in memory.
            source = pyarrow.parquet.ParquetFile(file, pre_buffer=False)
            threads = torch.get_num_threads() if finder.on_cpu else 1
            schema = _schema(source.schema_arrow, finder, shard.source)
            with lone_threads(threads) as pool, pyarrow.parquet.ParquetWriter(draft, schema) as writer:
                stages = Stages(
                    ("read", source.iter_batches(ROWS)),
                    {
                        "decode": lambda rows: _decode(rows, finder, settings),
                        "find": lambda batch: _find(batch, finder, settings, pool),
                    },
                )
                with closing(iter(stages)) as batches:
                    for batch in batches:
                        table, report = _table(batch, schema)
                        writer.write_table(table)
                        total.add(report)
                        yield report
                writer.add_key_value_metadata({_REPORT: json.dumps(asdict(total))})
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{shard.source} cannot be read or {target} not be written: {error}") from error
    draft.replace(target)


def _schema(source: pyarrow.Schema, finder: Labeler, name: str) -> pyarrow.Schema:
    """Return the columns of the labels: first the columns of the source, then ours."""
    if "image" not in source.names:
        raise DataError(f"{name} has no column image; it has {', '.join(source.names)}.")
    shapes = {"landmarks": (finder.num_landmarks, 2), "box": (4,), "scores": (finder.num_landmarks,)}
    fields = [source.field(column) for column in source.names if column not in shapes]
    # What `datasets` reads of a Parquet file, and writes into one: that these are pictures, and what else was said.
    said = json.loads((source.metadata or {}).get(_FEATURES, b"{}")).get("info", {}).get("features", {})
    features = {field.name: said[field.name] for field in fields if field.name in said} | {"image": {"_type": "Image"}}
    picture = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    fields = [pyarrow.field("image", picture) if field.name == "image" else field for field in fields]
    for column, shape in shapes.items():
        kind: pyarrow.DataType = pyarrow.float32()
        feature: dict[str, Any] = {"dtype": "float32", "_type": "Value"}
        for length in reversed(shape):
            kind, feature = pyarrow.list_(kind, length), {"feature": feature, "length": length, "_type": "List"}
        fields.append(pyarrow.field(column, kind))
        features[column] = feature
    return pyarrow.schema(fields, {_FEATURES: json.dumps({"info": {"features": features}})})


def _decode(rows: pyarrow.RecordBatch, finder: Labeler, settings: LabelSettings) -> _Batch:
    """Read the pictures of some rows, and find the faces of rows that come without a box."""
    given = rows.column("box").to_pylist() if "box" in rows.schema.names and not settings.search else None
    images: list[Picture | None] = []
    boxes: list[Sequence[Box]] = []
    for index, source in enumerate(rows.column("image").to_pylist()):
        try:
            image = _open(source)
            box = given[index] if given else None
            boxes.append(finder.detect(image) if box is None else [box])
            images.append(image)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            boxes.append([])
            images.append(None)
    return _Batch(rows, images, boxes)


def _open(source: dict[str, Any] | None) -> Picture:
    if not source or not (source.get("bytes") or source.get("path")):
        raise ImageError("the row has no picture.")
    return Picture(Image.open(io.BytesIO(source["bytes"]) if source.get("bytes") else source["path"]))


def _find(batch: _Batch, finder: Labeler, settings: LabelSettings, pool: Any) -> _Batch:
    """Find the landmarks, a few pictures at a time: which ones go together depends on the rows only."""
    size = FACES_PER_THREAD if finder.on_cpu else PICTURES_PER_PASS
    places = [index for index, boxes in enumerate(batch.boxes) if boxes]
    pieces = [places[start : start + size] for start in range(0, len(places), size)]

    def find(piece: list[int]) -> list[list[Face]]:
        images, boxes = [batch.images[index] for index in piece], [batch.boxes[index] for index in piece]
        return finder.find(images, boxes, settings.min_score)

    faces: list[Sequence[Face]] = [()] * len(batch.boxes)
    for piece, found in zip(pieces, pool.map(find, pieces), strict=True):
        for index, picture in zip(piece, found, strict=True):
            faces[index] = picture
    return replace(batch, faces=faces)


def _table(batch: _Batch, schema: pyarrow.Schema) -> tuple[pyarrow.Table, LabelReport]:
    """Return the rows of the labels, and what was found."""
    found = [(index, face) for index, faces in enumerate(batch.faces) for face in faces]
    indices = pyarrow.array([index for index, _ in found], pyarrow.int64())
    rows = pyarrow.Table.from_batches([batch.rows]).take(indices)
    keys = {"landmarks": "keypoints", "box": "bbox", "scores": "scores"}
    columns = []
    for name in schema.names:
        if name in keys:
            values = [np.asarray(face[keys[name]], dtype=np.float32).tolist() for _, face in found]
            columns.append(pyarrow.array(values, schema.field(name).type))
        else:
            columns.append(rows[name].cast(schema.field(name).type))
    scores = [float(face["scores"].double().mean()) for _, face in found]
    histogram, _ = np.histogram(np.clip(scores, 0, 1), bins=SCORE_BINS, range=(0, 1))
    unreadable = sum(image is None for image in batch.images)
    report = LabelReport(
        pictures=len(batch.images),
        faces=len(found),
        without_face=sum(not faces for faces in batch.faces) - unreadable,
        unreadable=unreadable,
        missing_points=sum(int(face["keypoints"].isnan().any(-1).sum()) for _, face in found),
        score_sum=sum(scores),
        score_histogram=histogram.tolist(),
    )
    return pyarrow.Table.from_arrays(columns, schema=schema), report
