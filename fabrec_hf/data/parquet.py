"""Faces from Parquet files in the layout of the `datasets` library, which need not be there.

Labeled packs have the columns `image`, `landmarks` ((L, 2) pixels of that image, pixel centers at integers, NaN for
a point that is not annotated), `box` (x, y, width, height) and `picture` (the photograph that a face was cut from);
unlabeled ones need only `image`. Further columns are kept.
"""

import glob
import os
import re
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow
import pyarrow.parquet

from ..errors import DataError
from .columns import DERIVED, adapt_columns
from .face_set import find_face_set
from .face_table import FaceTable, has_datasets


if TYPE_CHECKING:
    import datasets


__all__ = ["check_schemas", "find_splits", "is_repository", "load_faces", "shard_name"]

ADVICE = "pip install 'datasets>=4.0'"

# "train-00000-of-00001.parquet", "test.parquet", "train/part-0.parquet" name their split. A set that was converted
# here says in its `face_set.json` what other splits it has.
_SPLIT = re.compile(r"(train|test|validation|valid|val|dev)(?=$|[-_.])", re.IGNORECASE)
_SAME_SPLIT = {"valid": "validation", "val": "validation", "dev": "validation"}


def load_faces(
    paths: str | os.PathLike | Sequence[str | os.PathLike],
    split: str | None = None,
    columns: Sequence[str] = ("image",),
    default_split: str | None = None,
    streaming: bool = False,
    names: Mapping[str, str] | None = None,
) -> "datasets.Dataset | datasets.IterableDataset":
    """Read one or more Parquet files of faces.

    Rows keep their order, files are taken in the order of their names. The data stays on disk, memory-mapped: any
    number of faces fits.

    Args:
        paths: A Parquet file, a folder of them (searched to any depth), a glob, or a list of any of these; or the name
            `owner/name` of a data set on the Hub.
        split: `"train"`, `"test"`, `"validation"`, or another one of a converted set: reads only the files that are
            named so, or lie in a folder named so. Needed where a folder or glob holds several splits.
        columns: Columns that every file must have, for example `("image", "landmarks", "box")` for labeled faces.
        default_split: The split to read where there are several and `split` is None.
        streaming: Return an `IterableDataset` that reads the files as it goes, without the copy that `datasets` else
            keeps in its cache. This needs `datasets`.
        names: What columns are called here, for example `{"landmarks": "keypoints", "box": "bbox"}`.

    Returns:
        The rows of all files; `image` decodes to a PIL image. Where `datasets` is not installed, a `FaceTable`, which
        gives the same rows.

    Raises:
        DataError: If there is no such file or folder, a file is not Parquet or lacks a column, or it is not clear
            which split is meant.
    """
    if isinstance(paths, (str, os.PathLike)):
        paths = [paths]
    split = _SAME_SPLIT.get(split, split) if split else None
    if len(paths) == 1 and is_repository(paths[0]):
        name = os.fspath(paths[0])
        faces = _load_repository(name, split, default_split, streaming)
        return adapt_columns(faces, columns, names, name)
    files = [file for path in paths for file in _find_files(os.fspath(path), split, default_split)]
    if not files:
        raise DataError("No data was named; give a Parquet file, a folder of Parquet files or a glob.")
    called = dict(names or {})
    derived = {called.get(name, name): called.get(origin, origin) for name, origin in DERIVED.items()}
    check_schemas(files, [called.get(name, name) for name in columns], derived)
    faces: Any = _load_files(files, streaming) if has_datasets() else _read_table(files, streaming)
    if not streaming and not len(faces):
        raise DataError(f"{files[0]} holds no face.")
    return adapt_columns(faces, columns, names, str(paths[0]))


def _load_files(files: Sequence[Path], streaming: bool) -> Any:
    """Open files with `datasets`."""
    import datasets

    data_files = [glob.escape(str(file)) for file in files]
    try:
        return datasets.load_dataset("parquet", data_files=data_files, split="train", streaming=streaming)
    except datasets.exceptions.DatasetGenerationError as error:
        raise _unreadable(files, error.__cause__ or error) from error


def _read_table(files: Sequence[Path], streaming: bool) -> FaceTable:
    """Read files with pyarrow alone."""
    if streaming:
        raise DataError(f"A stream of faces needs the datasets library: {ADVICE}, or read the faces without a stream.")
    try:
        return FaceTable.read(files)
    except (pyarrow.ArrowException, OSError) as error:
        raise _unreadable(files, error) from error


def _unreadable(files: Sequence[Path], cause: BaseException) -> DataError:
    reason = (str(cause).splitlines() or [type(cause).__name__])[0]
    return DataError(f"{', '.join(map(str, files))} cannot be read, are the files whole? {reason}")


def is_repository(path: str | os.PathLike) -> bool:
    """Tell whether something can only be the name `owner/name` of a data set on the Hub."""
    name = os.fspath(path)
    return bool(re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name)) and not (
        os.path.exists(name) or os.path.isdir(os.path.dirname(name)) or name.endswith(".parquet")
    )


def _load_repository(name: str, split: str | None, default_split: str | None, streaming: bool) -> Any:
    """Load a split of a data set on the Hub."""
    if not has_datasets():
        raise DataError(f"Reading {name} from the Hub needs the datasets library: {ADVICE}, or name files here.")
    import datasets

    try:
        known = {_SAME_SPLIT.get(given, given): given for given in datasets.get_dataset_split_names(name)}
        if split is None:
            split = next(iter(known)) if len(known) == 1 else default_split
        if split not in known:
            wish = "say which one to read" if split is None else f"there is no {split} split"
            raise DataError(f"{name} holds the splits {', '.join(known)}; {wish}.")
        return datasets.load_dataset(name, split=known[split], streaming=streaming)
    except (FileNotFoundError, ConnectionError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"There is no file or folder {name}, and no data set of that name could be read from the Hub: "
            f"{str(error).splitlines()[0]}"
        ) from error


def find_splits(path: str | os.PathLike) -> dict[str | None, list[Path]]:
    """Sort the Parquet files of a path by split.

    Args:
        path: A Parquet file, a folder of them (searched to any depth), or a glob.

    Returns:
        The files of each split in order; files that name no split are under None.

    Raises:
        DataError: If there is no such file or folder, or no Parquet file in it.
    """
    path = os.fspath(path)
    root, files = (None, [Path(path)]) if os.path.isfile(path) else _expand(path)
    face_set = find_face_set(root or path)
    splits: dict[str | None, list[Path]] = {}
    for file in files:
        splits.setdefault(_split_of(file, root, tuple(face_set.splits) if face_set else ()), []).append(file)
    return splits


def _find_files(path: str, split: str | None, default_split: str | None) -> list[Path]:
    """Return the Parquet files that a path stands for, in order."""
    splits = find_splits(path)
    if os.path.isfile(path):
        found = next(iter(splits))
        if split and found not in (None, split):
            raise DataError(f"{path} is the {found} split, not {split}.")
        return [Path(path)]
    names = sorted(name for name in splits if name)
    if split is None and len(names) > 1:
        if default_split not in names:
            raise DataError(f"{path} holds the splits {', '.join(names)}; say which one to read.")
        split = default_split
    if split is None:
        return sorted(file for files in splits.values() for file in files)
    if split not in splits:
        known = f"it has {', '.join(names)}" if names else "none of its files is named after a split"
        raise DataError(f"{path} has no {split} split; {known}.")
    return splits[split]


def _expand(path: str) -> tuple[Path, list[Path]]:
    """List the files of a folder or glob; the first value is the folder, below which folder names tell the split."""
    if os.path.isdir(path):
        root, files = Path(path), sorted(Path(path).rglob("*.parquet"))
        if not files:
            raise DataError(f"The folder {path} holds no .parquet file; expected files such as train-0.parquet in it.")
        return root, files
    files = sorted(Path(name) for name in glob.glob(path, recursive=True) if os.path.isfile(name))
    if not files:
        raise DataError(
            f"There is no file or folder {path}; expected a Parquet file, a folder of Parquet files, or a glob such "
            "as faces/*.parquet."
        )
    return Path(*takewhile(lambda part: not glob.has_magic(part), Path(path).parts)), files


def _split_of(file: Path, root: Path | None, known: Sequence[str]) -> str | None:
    """Read the split off the name of a file, else off its folders below the root."""
    for split in known:
        if re.fullmatch(re.escape(split) + r"-\d+-of-\d+", file.stem):
            return split
    folders = file.parent.relative_to(root).parts if root and file.is_relative_to(root) else ()
    for name in (file.stem, *reversed(folders)):
        match = _SPLIT.match(name)
        if match:
            return _SAME_SPLIT.get(match[1].lower(), match[1].lower())
    return None


def check_schemas(files: Sequence[Path], columns: Sequence[str], derived: Mapping[str, str] | None = None) -> None:
    """Refuse files that lack a column or differ from the first one, before anything is read.

    Args:
        files: Parquet files.
        columns: What each must have.
        derived: For a column that may be missing, the one that must be there instead.

    Raises:
        DataError: If a file cannot be read, lacks a column, or has others than the first one.
    """
    derived = derived or {}
    first = None
    for file in files:
        try:
            schema = pyarrow.parquet.read_schema(file)
        except (pyarrow.ArrowInvalid, OSError) as error:
            raise DataError(f"{file} is not a readable Parquet file.") from error
        missing = [name for name in columns if name not in schema.names and derived.get(name) not in schema.names]
        if missing:
            raise DataError(
                f"{file} has no column {', '.join(missing)}; expected {', '.join(columns)}, found "
                f"{', '.join(schema.names)}."
            )
        first = schema if first is None else first
        differing = sorted(set(first.names) ^ set(schema.names))
        if differing or any(first.field(name).type != schema.field(name).type for name in first.names):
            raise DataError(
                f"{file} has other columns than {files[0]} ({', '.join(differing) or 'of other types'}); read them "
                "one after the other."
            )


def shard_name(split: str, index: int, count: int) -> str:
    """Name a file as the Hub does: `train-00000-of-00002.parquet`."""
    return f"{split}-{index:05d}-of-{count:05d}.parquet"
