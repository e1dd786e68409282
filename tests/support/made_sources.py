"""Sources of faces that a test makes up, with pictures of one color each."""

from functools import partial

from PIL import Image

from fabrec_hf.data.source import FaceSource
from fabrec_hf.model.known_schemes import LandmarkScheme


SCHEME = LandmarkScheme("three", 3, ("left", "right", "tip"), ((0, 1),))


def yield_rows(rows):
    yield from rows


def make_source(splits, scheme=SCHEME, **more):
    functions = {name: partial(yield_rows, tuple(rows)) for name, rows in splits.items()}
    return FaceSource("test", functions, scheme, **more)


def make_row(folder, index, landmarks=((1, 2), (5, 2), (3, 6)), box=(0, 1, 6, 6), **more):
    """A face in a picture of 8 x 10 pixels of its own color."""
    path = folder / f"{index}.png"
    if not path.exists():
        Image.new("RGB", (8, 10), (index % 256, index // 256, 9)).save(path)
    return {"image": path, "name": f"face {index}", "landmarks": landmarks, "box": box, "picture": f"p{index}", **more}
