"""Fixtures the tests share."""

import os
from collections.abc import Iterator
from pathlib import Path


# Read when the Hub's client is imported; the tests' Hub takes large files by Git LFS only.
os.environ["HF_HUB_DISABLE_XET"] = "1"

# ruff: noqa: E402
import datasets
import numpy as np
import pytest


# Seconds that datasets waits at the end of a shuffled stream of Parquet files, for threads of Arrow: 5 if not set.
datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN = 0.1
pytest.register_assert_rewrite("support")

from fabrec_hf.data import load_faces
from support.faces import draw_face
from support.hub_client import HubServer, running_hub
from support.processor_cases import BACKENDS


# What launches, trains and exports. The processes of `make test` take up the others last, which are done sooner: none
# of them is left alone with a long file in the end.
LONGEST = ("training", "hub", "docs", "export", "cli", "model", "test_notebooks.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the files of the rooms that take longest first."""
    here = Path(__file__).parent
    items.sort(key=lambda item: item.path.relative_to(here).parts[0] not in LONGEST)


@pytest.fixture(params=BACKENDS, ids=["torchvision", "pil"])
def backend(request):
    """Each of the two processor classes."""
    return request.param


@pytest.fixture
def few_crops(monkeypatch):
    """Let detectors that are taught look closer after two crops of each face, where their errors do not matter."""
    monkeypatch.setattr("fabrec_hf.learning.refinement.CROPS", 1)


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


@pytest.fixture
def pts_folder(tmp_path, drawn_faces):
    """Four pictures with .pts files of three points each, one point missing."""
    folder = tmp_path / "annotated"
    folder.mkdir()
    for index, row in enumerate(load_faces(drawn_faces).select(range(4))):
        row["image"].save(folder / f"{index}.png")
        points = [f"{x} {y}" for x, y in row["landmarks"][:3]]
        if index == 2:
            points[1] = "nan nan"
        text = "\n".join(["version: 1", "n_points: 3", "{", *points, "}"])
        (folder / f"{index}.pts").write_text(text + "\n")
    return folder


@pytest.fixture(scope="session")
def hub() -> Iterator[HubServer]:
    """A Hub of the tests' own: each test uses repositories with names of its own."""
    with running_hub() as server:
        yield server


@pytest.fixture(scope="session")
def labeled(tmp_path_factory):
    """A converted-like folder with a train and a test split of noise pictures and labels."""
    folder = tmp_path_factory.mktemp("labeled")
    random = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 6)):
        rows = {
            "image": [random.integers(0, 256, (40, 40, 3), np.uint8) for _ in range(count)],
            "landmarks": random.uniform(5, 35, (count, 5, 2)).tolist(),
            "box": [[5.0, 5.0, 30.0, 30.0]] * count,
        }
        features = datasets.Features(
            {
                "image": datasets.Image(),
                "landmarks": datasets.List(datasets.List(datasets.Value("float32"))),
                "box": datasets.List(datasets.Value("float32")),
            }
        )
        datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / f"{split}.parquet")
    return folder
