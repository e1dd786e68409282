"""A small checkpoint and a picture, for the tests of several commands."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from support.landmark_checkpoints import save_landmark_model


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return save_landmark_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def photo(tmp_path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)).save(path)
    return path
