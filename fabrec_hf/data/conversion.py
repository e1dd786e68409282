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
from dataclasses import asdict, dataclass
from itertools import combinations
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow.parquet
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from ..errors import DataError
from .box_rules import BOX_RULES
from .face_set import FaceSet
from .parquet import shard_name
from .shards import ShardReport, ShardSettings, chunks, write_shard
from .source import FaceSource, Row
from .survey import Survey, survey_source


__all__ = ["convert_faces"]


def convert_faces(
    source: FaceSource,
    output: str | os.PathLike,
    boxes: str | None = None,
    shard_size: int = 2000,
    num_proc: int = 1,
    allow_copies: bool = False,
    skip_unreadable: bool = False,
    progress: bool = False,
) -> FaceSet:
    """Write a source's splits to `OUTPUT/data/SPLIT-*.parquet`, with `face_set.json` and a dataset card beside them.

    Args:
        source: The opened data.
        output: Folder to write: new, or empty. It appears complete or not at all.
        boxes: Where the box of a face comes from, one of `BOX_RULES`. By default (`"auto"`) given boxes are compared
            with those that faces are found by, on some of the faces, and kept, converted or replaced as a whole; a
            face without one gets the points' box for the schemes that span the face (300w, wflw), the detector's for
            other points, and none without landmarks. Boxes of the published sets are known and kept.
        shard_size: Rows a file.
        num_proc: Processes that write; changes the speed only. A script that asks for more than one must guard its
            own start by `if __name__ == "__main__":`, since they are spawned.
        allow_copies: Accept a picture that stands in more than one split.
        skip_unreadable: Leave faces out whose picture is missing or unreadable, and count them.
        progress: Show a progress bar.

    Returns:
        What was written and found. Beside the counts of `ShardReport` each split has `copies`: rows whose picture
        another row of the split has too (several faces of one photograph are such).

    Raises:
        DataError: If the output is in use, a picture cannot be read, a split is empty, or a picture stands in two
            splits.
        ValueError: If an argument is out of range.
    """
    if boxes is not None and boxes not in BOX_RULES:
        raise ValueError(f"boxes must be one of {', '.join(BOX_RULES)}, not {boxes!r}.")
    if shard_size < 1 or num_proc < 1:
        raise ValueError("shard_size and num_proc must be at least 1.")
    output = Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir()) or output.samefile(Path.cwd())):
        raise DataError(f"{output} exists and is not empty; name a new folder.")
    survey = survey_source(source, boxes)
    settings = ShardSettings(source.features, survey, skip_unreadable)
    output = output.absolute()
    workplace = output.with_name(f".{output.name}.partial")
    lock = FileLock(f"{workplace}.lock", timeout=0)
    output.parent.mkdir(parents=True, exist_ok=True)
    try:
        with lock:
            _open_workplace(source, workplace, settings, shard_size)
            written = {}
            for split in source.splits:
                shards = chunks(source.rows(split, extras=True), shard_size)
                reports = _run(shards, split, workplace / "data", settings, num_proc)
                written[split] = _collect(reports, split, progress)
            if not (allow_copies or source.split_by_face):
                _refuse_copies(workplace, written)
            return _finish(source, written, workplace, output, survey, boxes or "auto")
    except Timeout as error:
        raise DataError(f"Another conversion to {output} is running; wait for it or name another folder.") from error
    except DataError:
        shutil.rmtree(workplace, ignore_errors=True)  # the data is going to change, and finished shards with it
        raise
    finally:
        if not lock.is_locked:
            Path(lock.lock_file).unlink(missing_ok=True)


@dataclass(frozen=True)
class _Written:
    """A split on disk: what was found, the faces of each shard, and the hash of every face's picture, in order."""

    report: ShardReport
    sizes: list[int]
    digests: np.ndarray

    def place(self, face: int) -> tuple[int, int]:
        """Return the shard that a face stands in, and its row there."""
        ends = np.cumsum(self.sizes)
        shard = int(np.searchsorted(ends, face, side="right"))
        return shard, face - int(ends[shard]) + self.sizes[shard]


def _open_workplace(source: FaceSource, workplace: Path, settings: ShardSettings, shard_size: int) -> None:
    """Make the folder that the shards are written to; one of an interrupted run of the same job is taken over."""
    rules = [asdict(settings.survey), settings.skip_unreadable, shard_size]
    job = [*(source.stamp(split) for split in source.splits), *rules]
    note = workplace / "job.json"
    content = json.dumps(job)
    if workplace.exists() and (not note.is_file() or note.read_text() != content):
        shutil.rmtree(workplace)
    (workplace / "data").mkdir(parents=True, exist_ok=True)
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
    if not total.faces:
        raise DataError(f"The {split} split holds no face whose picture can be read.")
    return _Written(total, sizes, np.concatenate(digests))


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


def _refuse_copies(workplace: Path, written: Mapping[str, _Written]) -> None:
    """Raise if one and the same picture stands in two splits: what is tested on would have been trained on."""
    for first, second in combinations(written, 2):
        shared, *faces = np.intersect1d(written[first].digests, written[second].digests, return_indices=True)
        if len(shared):
            names = [
                _name_of(workplace, split, written[split], int(rows[0]))
                for split, rows in zip((first, second), faces, strict=True)
            ]
            raise DataError(
                f"{len(shared)} pictures stand both in {first} and in {second}, for example {' and '.join(names)}; "
                "remove them from one of the two, or allow copies if you know why (--allow-copies)."
            )


def _name_of(workplace: Path, split: str, written: _Written, face: int) -> str:
    shard, row = written.place(face)
    names = pyarrow.parquet.read_table(workplace / "data" / f"{split}-{shard}.parquet", columns=["name"])["name"]
    return names[row].as_py() or f"row {face}"


def _finish(
    source: FaceSource, written: Mapping[str, _Written], workplace: Path, output: Path, survey: Survey, boxes: str
) -> FaceSet:
    """Give the shards their names, describe them, and move everything to its place."""
    splits = {}
    for split, faces in written.items():
        for index in range(len(faces.sizes)):
            shard = workplace / "data" / f"{split}-{index}.parquet"
            shard.replace(shard.with_name(shard_name(split, index, len(faces.sizes))))
        counts = faces.report.to_dict()
        del counts["digests"]
        splits[split] = counts | {"copies": len(faces.digests) - len(np.unique(faces.digests))}
    for note in [workplace / "job.json", *(workplace / "data").glob("*.json")]:
        note.unlink()
    face_set = FaceSet(
        source.kind,
        source.scheme,
        source.extend_top,
        source.extend_bottom,
        splits,
        boxes=json.loads(
            json.dumps({"rule": boxes, "orientation": survey.orientation, **survey.boxes.to_dict()})
        ),  # as it is read back
        notes=(*source.notes, *survey.notes),
    )
    face_set.write(workplace)
    (workplace / "README.md").write_text(face_set.card(), encoding="utf-8")
    if output.exists():
        output.rmdir()
    workplace.rename(output)
    return face_set
