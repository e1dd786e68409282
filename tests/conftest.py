"""Fixtures the tests share: faces drawn with lines and ellipses, whose landmarks are known exactly."""

import os
from collections.abc import Iterator
from pathlib import Path


# Read when the Hub's client is imported; the tests' Hub takes large files by Git LFS only.
os.environ["HF_HUB_DISABLE_XET"] = "1"

# ruff: noqa: E402
import datasets
import numpy as np
import pytest
from hub_client import HubServer, running_hub
from PIL import Image, ImageDraw
from processor_cases import BACKENDS


SHARED = Path(__file__).parents[2] / "shared"
"""Real faces and the parity fixture, beside the checkout; what needs them is skipped without them."""

# Eyes, nose tip and mouth corners of an upright face, as fractions of its box (the mtfl scheme's five points).
FIVE_POINTS = np.array([[0.3, 0.35], [0.7, 0.35], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]])


def draw_face(seed: int, size: int = 96) -> tuple[Image.Image, np.ndarray, list[float]]:
    """Draw one face; returns the picture, its five landmarks (pixel centres at integers) and its box."""
    random = np.random.default_rng(seed)
    image = Image.new("RGB", (size, size), tuple(random.integers(0, 120, 3).tolist()))
    side = size * random.uniform(0.45, 0.6)
    x, y = random.uniform(0.2 * size, 0.75 * size - side / 2, 2) - 0.1 * size
    draw = ImageDraw.Draw(image)
    draw.ellipse([x, y, x + side, y + side * 1.1], fill=tuple(random.integers(150, 255, 3).tolist()))
    points = np.array([x, y]) + FIVE_POINTS * side
    for px, py in points[:3]:
        draw.ellipse([px - 3, py - 3, px + 3, py + 3], fill=(20, 20, 60))
    draw.line([tuple(points[3]), tuple(points[4])], fill=(120, 0, 0), width=4)
    return image, points, [float(x), float(y), float(side), float(side)]


@pytest.fixture(params=BACKENDS, ids=["torchvision", "pil"])
def backend(request):
    """Each of the two processor classes."""
    return request.param


@pytest.fixture(scope="session")
def drawn_faces(tmp_path_factory) -> Path:
    """A folder with `train.parquet`: 24 drawn faces with image, landmarks, box, name and picture."""
    rows = {"image": [], "landmarks": [], "box": [], "name": [], "picture": []}
    for index in range(24):
        image, points, box = draw_face(index)
        for key, value in zip(rows, (image, points.tolist(), box, f"{index}.png", f"picture-{index}"), strict=True):
            rows[key].append(value)
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "landmarks": datasets.List(datasets.List(datasets.Value("float32"))),
            "box": datasets.List(datasets.Value("float32")),
            "name": datasets.Value("string"),
            "picture": datasets.Value("string"),
        }
    )
    folder = tmp_path_factory.mktemp("drawn_faces")
    datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / "train.parquet")
    return folder


@pytest.fixture(scope="session")
def hub() -> Iterator[HubServer]:
    """A Hub of the tests' own: each test uses repositories with names of its own."""
    with running_hub() as server:
        yield server
