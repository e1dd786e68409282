"""What the tests of annotations written by hand share: small pictures, and the rows that a reader yields."""

import json
import pickle

import numpy as np
from PIL import Image

from fabrec_hf.data.readers import open_source
from fabrec_hf.model.known_schemes import LandmarkScheme


NAN = [np.nan, np.nan]
EYES = LandmarkScheme("eyes", 3, ("left_eye", "right_eye", "nose"), ((0, 1),))


def picture(path, size=(40, 30)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (10, 20, 30)).save(path)


def write(path, content):
    path.write_text(json.dumps(content))
    return path


def rows(source, split="train"):
    """All rows of a split, without the columns that are not given; also a check that the reader can be sent away."""
    found = list(pickle.loads(pickle.dumps(source)).rows(split))
    assert all(list(row) == list(source.features) and row["split"] == split for row in found)
    return found


def read(kind, path, **options):
    """All rows of data that has one split."""
    source = open_source(kind, path, **options)
    (split,) = source.splits
    return rows(source, split)


def points(row):
    return row["landmarks"].tolist()


def same(row, *expected):
    np.testing.assert_allclose(row["landmarks"], expected, atol=1e-4)
