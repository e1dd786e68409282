"""Convert any face data that can be read to Parquet files ready for the Hub, and say what is in it.

Memory does not grow with the data: rows stream from the reader, in shards of a fixed number of rows, to one or more
processes that write them. What a shard holds depends on its rows alone, so any number of processes writes the same
files. The work stands beside the output until all of it is done; started again after a kill it goes on there.
"""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow.parquet
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from ..common.drafts import remove_drafts
from ..common.output_folder import check_new_folder, take_place
from ..errors import DataError
from .box_rules import check_box_rule
from .face_set import FaceSet
from .found_splits import FoundSplit, describe_faces, refuse_copies
from .parquet import shard_name
from .scheme_conversion import SchemeConversion, find_conversion
from .shards import ShardReport, ShardSettings, chunks, write_shard
from .source import FaceSource, Row
from .survey import Survey, survey_source


__all__ = ["ConversionSettings", "convert_faces"]


@dataclass(frozen=True)
class ConversionSettings:
    """How a set of faces is converted.

    Attributes:
        boxes: Where the box of a face comes from, one of `BOX_RULES`. By default (`"auto"`) given boxes are compared
            with those that faces are found by, on some of the faces, and kept, converted or replaced as a whole; a
            face without one gets the points' box for the schemes that span the face (300w, wflw), the detector's for
            other points, and none without landmarks. Boxes of the published sets are known and kept.
        shard_size: Rows a file.
        num_proc: Processes that write; changes the speed only. A script that asks for more than one must guard its
            own start by `if __name__ == "__main__":`, since they are spawned.
        allow_copies: Accept a picture that stands in more than one split.
        skip_unreadable: Leave faces out whose picture is missing or unreadable, and count them.
        to_scheme: Convert the landmarks to this built-in scheme of fewer points, see `convert_landmarks`. Boxes that
            are made of points are made of all that there are.
        progress: Show a progress bar.

    Raises:
        ValueError: If one is out of range.
    """

    boxes: str | None = None
    shard_size: int = 2000
    num_proc: int = 1
    allow_copies: bool = False
    skip_unreadable: bool = False
    to_scheme: str | None = None
    progress: bool = False

    def __post_init__(self):
        """Check the fields."""
        check_box_rule(self.boxes)
        if self.shard_size < 1 or self.num_proc < 1:
            raise ValueError("shard_size and num_proc must be at least 1.")


def convert_faces(
    source: FaceSource, output: str | os.PathLike, settings: ConversionSettings | None = None
) -> FaceSet:
    """Write a source's splits to `OUTPUT/data/SPLIT-*.parquet`, with `face_set.json` and a dataset card beside them.

    Args:
        source: The opened data.
        output: Folder to write: new, or empty. It appears complete or not at all.
        settings: How to convert; `ConversionSettings()` by default.

    Returns:
        What was written and found. Beside the counts of `ShardReport` each split has `copies`: rows whose picture
        another row of the split has too (several faces of one photograph are such).

    Raises:
        DataError: If the output is in use, a picture cannot be read, a split is empty, or a picture stands in two
            splits.
        SchemeError: If the landmarks cannot be converted to the scheme that is asked for.
    """
    settings = settings or ConversionSettings()
    output = _new_folder(output)
    conversion = find_conversion(source, settings.to_scheme) if settings.to_scheme else None
    written_as = _converted(source, conversion) if conversion else source
    survey = survey_source(source, settings.boxes)
    shard = ShardSettings(written_as.features, survey, settings.skip_unreadable, conversion)
    workplace = output.with_name(f".{output.name}.partial")
    lock = FileLock(f"{workplace}.lock", timeout=0)
    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        with lock:
            _open_workplace(source, workplace, shard, settings.shard_size)
            written = _write_splits(source, workplace, shard, settings)
            return _finish(written_as, written, workplace, output, survey, settings.boxes or "auto")
    except Timeout as error:
        raise DataError(f"Another conversion to {output} is running; wait for it or name another folder.") from error
    except DataError:
        shutil.rmtree(workplace, ignore_errors=True)  # the data is going to change, and finished shards with it
        raise
    finally:
        if not lock.is_locked:
            Path(lock.lock_file).unlink(missing_ok=True)


def _write_splits(
    source: FaceSource, workplace: Path, shard: ShardSettings, settings: ConversionSettings
) -> dict[str, "_Written"]:
    """Write the shards of all splits, and refuse pictures that stand in two of them."""
    written = {}
    for split in source.splits:
        shards = chunks(source.rows(split, extras=True), settings.shard_size)
        reports = _run(shards, split, workplace / "data", shard, settings.num_proc)
        written[split] = _collect(reports, split, settings.progress)
    if not (settings.allow_copies or source.split_by_face):
        refuse_copies(
            {split: faces.found for split, faces in written.items()},
            lambda split, face: _name_of(workplace, split, written[split], face),
            "allow copies if you know why (--allow-copies)",
        )
    return written


def _new_folder(output: str | os.PathLike) -> Path:
    """Return the absolute path of a folder that is new or empty, and not where we stand."""
    folder = Path(output)
    check_new_folder(folder)
    if folder.exists() and folder.samefile(Path.cwd()):
        raise DataError(f"{folder} is the folder that you are in; name a new folder.")
    return folder.absolute()


def _converted(source: FaceSource, conversion: SchemeConversion) -> FaceSource:
    """Return what a source is after its landmarks are converted; its rows are those from before."""
    count, name = conversion.source.num_landmarks, conversion.source.name
    note = f"The landmarks were converted from the {count} points of {name}."
    return replace(source, scheme=conversion.target, notes=(*source.notes, note))


@dataclass(frozen=True)
class _Written:
    """A split on disk: what was found, and the faces of each shard."""

    found: FoundSplit
    sizes: list[int]

    def place(self, face: int) -> tuple[int, int]:
        """Return the shard that a face stands in, and its row there."""
        ends = np.cumsum(self.sizes)
        shard = int(np.searchsorted(ends, face, side="right"))
        return shard, face - int(ends[shard]) + self.sizes[shard]


def _open_workplace(source: FaceSource, workplace: Path, settings: ShardSettings, shard_size: int) -> None:
    """Make the folder that the shards are written to; one of an interrupted run of the same job is taken over."""
    target = settings.conversion.target.name if settings.conversion else None
    rules = [asdict(settings.survey), settings.skip_unreadable, shard_size, target]
    job = [*(source.stamp(split) for split in source.splits), *rules]
    note = workplace / "job.json"
    content = json.dumps(job)
    if workplace.exists() and (not note.is_file() or note.read_text() != content):
        shutil.rmtree(workplace)
    (workplace / "data").mkdir(parents=True, exist_ok=True)
    remove_drafts(workplace / "data")
    note.write_text(content)


def _collect(reports: Iterator[ShardReport], split: str, progress: bool) -> _Written:
    """Wait for a split's shards and put their reports together."""
    total, sizes, digests = ShardReport(), [], []
    with tqdm(desc=split, unit="face", disable=not progress) as bar:
        for report in reports:
            total.add(report)
            sizes.append(report.faces)
            digests.append(np.array(report.digests, dtype=np.uint64))
            bar.update(report.faces)
    every = np.concatenate(digests) if digests else np.empty(0, dtype=np.uint64)
    return _Written(FoundSplit.checked(split, total, every), sizes)


def _run(
    shards: Iterator[list[Row]], split: str, folder: Path, settings: ShardSettings, num_proc: int
) -> Iterator[ShardReport]:
    """Write shards in one or more processes and yield their reports in order, a few shards in memory at a time."""
    tasks = ((rows, folder / f"{split}-{index}.parquet") for index, rows in enumerate(shards))
    if num_proc == 1:
        yield from (write_shard(rows, path, settings) for rows, path in tasks)
        return
    # Spawned processes inherit no threads of torch or OpenCV, which a forked one may wait for in vain.
    with ProcessPoolExecutor(num_proc, mp_context=get_context("spawn")) as pool:
        waiting: list[Future] = []
        try:
            for rows, path in tasks:
                waiting.append(pool.submit(write_shard, rows, path, settings))
                while len(waiting) > num_proc:
                    yield waiting.pop(0).result()
            while waiting:
                yield waiting.pop(0).result()
        except BrokenProcessPool as error:
            raise DataError("A writing process was killed, perhaps for want of memory; lower num_proc.") from error
        finally:
            pool.shutdown(cancel_futures=True)


def _name_of(workplace: Path, split: str, written: _Written, face: int) -> str:
    """Return what a face on disk is called, for an error."""
    shard, row = written.place(face)
    names = pyarrow.parquet.read_table(workplace / "data" / f"{split}-{shard}.parquet", columns=["name"])["name"]
    return names[row].as_py() or f"row {face}"


def _finish(
    source: FaceSource, written: Mapping[str, _Written], workplace: Path, output: Path, survey: Survey, boxes: str
) -> FaceSet:
    """Give the shards their names, describe them, and move everything to its place."""
    for split, faces in written.items():
        for index in range(len(faces.sizes)):
            shard = workplace / "data" / f"{split}-{index}.parquet"
            shard.replace(shard.with_name(shard_name(split, index, len(faces.sizes))))
    for note in [workplace / "job.json", *(workplace / "data").glob("*.json")]:
        note.unlink()
    face_set = describe_faces(source, {split: faces.found for split, faces in written.items()}, survey, boxes)
    face_set.write(workplace)
    (workplace / "README.md").write_text(face_set.card(), encoding="utf-8")
    take_place(workplace, output)
    return face_set
