"""Rows of Parquet files without the `datasets` library, for machines that have pyarrow alone.

`load_faces` returns a `FaceTable` where `datasets` is not installed. It has the methods of `datasets.Dataset` that
training and scoring use, and gives the same rows.
"""

import importlib.util
import io
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import ExifTags, Image, ImageOps


__all__ = ["FaceTable", "encoded_images", "has_datasets"]

ROWS = 100
"""Rows that are copied, or read in a pass over all rows, at a time."""


def has_datasets() -> bool:
    """Tell whether the `datasets` library is installed."""
    return importlib.util.find_spec("datasets") is not None


def encoded_images(faces: Any) -> Any:
    """Return the same rows with `image` as it is stored: `{"bytes": ..., "path": ...}`.

    Args:
        faces: A `FaceTable`, or a data set of `datasets`.
    """
    if isinstance(faces, FaceTable):
        return replace(faces, decode=False)
    import datasets

    return faces.cast_column("image", datasets.Image(decode=False))


class _Store:
    """Rows in an Arrow file that is mapped into memory: any number fits, and processes share it by its path."""

    def __init__(self, path: Path, folder: Any = None):
        self.path, self._folder = path, folder  # the folder is removed with the last reference to it
        self.table = pyarrow.ipc.open_file(pyarrow.memory_map(str(path))).read_all()

    def __reduce__(self) -> tuple:
        return _Store, (self.path,)


def _copy(files: Sequence[Path]) -> _Store:
    """Copy Parquet files of the same columns into one Arrow file of a temporary folder."""
    folder = tempfile.TemporaryDirectory(prefix="fabrec-faces-")
    path = Path(folder.name) / "faces.arrow"
    first = pyarrow.parquet.read_schema(files[0])
    schema = first.remove_metadata()
    with pyarrow.ipc.new_file(str(path), schema) as writer:
        for file in files:
            for batch in pyarrow.parquet.ParquetFile(file).iter_batches(ROWS, columns=schema.names):
                writer.write_table(pyarrow.Table.from_batches([batch]).select(schema.names).cast(schema))
    return _Store(path, folder)


@dataclass(frozen=True)
class FaceTable:
    """Rows of faces that are read when they are asked for.

    `table[3]` is a row, `table[3:9]` and `table[[3, 5]]` are columns of some rows, `table["name"]` is a column.

    Attributes:
        store: The rows of the files.
        rows: (N,) integers, which of them these are.
        names: For each column, in order, what it is called in the store; None where it was added.
        added: Columns that were added, a value for each row of the store.
        decode: Whether `image` is a PIL image, upright, and not as it is stored.
    """

    store: _Store
    rows: np.ndarray
    names: Mapping[str, str | None]
    added: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    decode: bool = True

    @classmethod
    def read(cls, files: Sequence[Path]) -> "FaceTable":
        """Read Parquet files whose columns are the same.

        Args:
            files: The files; their rows follow each other. They are copied into a temporary folder, uncompressed but
                for the pictures themselves.

        Raises:
            OSError: A file cannot be read, or there is no room for the copy.
            pyarrow.ArrowException: A file is not whole.
        """
        store = _copy(files)
        return cls(store, np.arange(store.table.num_rows), {name: name for name in store.table.column_names})

    @property
    def column_names(self) -> list[str]:
        """The names of the columns, in order."""
        return list(self.names)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for start in range(0, len(self), ROWS):
            columns = self[start : start + ROWS]
            for values in zip(*columns.values(), strict=True):
                yield dict(zip(columns, values, strict=True))

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, str):
            return self._column(key, self.rows)
        if isinstance(key, (int, np.integer)):
            if not -len(self) <= key < len(self):
                raise IndexError(f"There is no row {key}: the table has {len(self)}.")
            rows = self.rows[[int(key)]]
            return {name: self._column(name, rows)[0] for name in self.names}
        rows = self.rows[key if isinstance(key, slice) else np.asarray(key, dtype=np.int64)]
        return {name: self._column(name, rows) for name in self.names}

    def select(self, rows: Any) -> "FaceTable":
        """Return some rows, given as integers, in that order."""
        return replace(self, rows=self.rows[np.asarray(rows, dtype=np.int64)])

    def select_columns(self, names: str | Sequence[str]) -> "FaceTable":
        """Return some columns."""
        names = [names] if isinstance(names, str) else names
        return replace(self, names={name: self.names[name] for name in names})

    def remove_columns(self, names: Sequence[str]) -> "FaceTable":
        """Return the other columns."""
        return replace(self, names={name: origin for name, origin in self.names.items() if name not in names})

    def rename_column(self, name: str, new: str) -> "FaceTable":
        """Return the same columns, one under another name."""
        added = {new if key == name else key: values for key, values in self.added.items()}
        return replace(
            self, names={new if key == name else key: origin for key, origin in self.names.items()}, added=added
        )

    def add_column(self, name: str, values: Sequence[Any]) -> "FaceTable":
        """Return the columns and one more, or another in the place of one, of a value for each row."""
        column: list[Any] = [None] * self.store.table.num_rows
        for row, value in zip(self.rows.tolist(), values, strict=True):
            column[row] = value
        return replace(self, names={**self.names, name: None}, added={**self.added, name: column})

    def _column(self, name: str, rows: np.ndarray) -> list[Any]:
        origin = self.names[name]
        if origin is None:
            return [self.added[name][row] for row in rows.tolist()]
        column = self.store.table.column(origin)
        if len(rows) > 1 and (np.diff(rows) == 1).all():
            values = column.slice(int(rows[0]), len(rows)).to_pylist()
        else:
            values = [column[row].as_py() for row in rows.tolist()]
        if name != "image":
            return values
        images = [_as_stored(value) for value in values]
        return [_open(image) for image in images] if self.decode else images


def _as_stored(value: Any) -> dict[str, Any] | None:
    """Return a picture as `datasets` stores it, which may also be the content of its file or a path."""
    if isinstance(value, bytes):
        return {"bytes": value, "path": None}
    return {"bytes": None, "path": value} if isinstance(value, str) else value


def _open(image: Mapping[str, Any] | None) -> Image.Image | None:
    """Decode a picture as `datasets` does: upright, its mode left as it is."""
    if image is None:
        return None
    picture = Image.open(io.BytesIO(image["bytes"]) if image["bytes"] is not None else image["path"])
    picture.load()  # also closes the file
    turned = picture.getexif().get(ExifTags.Base.Orientation) is not None
    return ImageOps.exif_transpose(picture) if turned else picture
