"""What the tests of the readers of published sets share: tiny pictures, and rows read in every way."""

import pickle

import datasets
import numpy as np
import pytest
from PIL import Image

from fabrec_hf.data.readers import open_source
from fabrec_hf.errors import DataError
from support.read_splits import load_split


def draw(file, gray=0):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 6), gray).save(file)


def read(source, split):
    """Return the rows as plain values, the picture as its path; a pickled source must give the same."""

    def plain(faces):
        return list(faces.cast_column("image", datasets.Image(decode=False)))

    rows, again = plain(load_split(source, split)), plain(load_split(pickle.loads(pickle.dumps(source)), split))
    np.testing.assert_equal(rows, again)  # NaN is equal to NaN here
    return rows


def names(rows):
    return [row["name"] for row in rows]


def fails(message, kind, path, split=None, **options):
    """Opening, or reading a split, fails with one line that matches."""
    with pytest.raises(DataError, match=message) as error:
        source = open_source(kind, path, **options)
        if split:
            load_split(source, split)
    assert "\n" not in str(error.value)
