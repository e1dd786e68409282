"""Landmark checkpoints of five points and the smallest size, whole and damaged."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from fabrec_hf import FabRecConfig, FabRecForLandmarkDetection, FabRecImageProcessor, get_scheme
from fabrec_hf.checkpoints.loading import load_landmark_model
from fabrec_hf.errors import CheckpointError
from support.tiny_checkpoints import TINY


def save_landmark_model(folder: Path, **fields) -> Path:
    torch.manual_seed(0)
    values = {"num_landmarks": 5, "landmark_scheme": get_scheme("mtfl").to_dict(), "heatmap_size": 16}
    model = FabRecForLandmarkDetection(FabRecConfig(**TINY, **(values | fields)))
    model.save_pretrained(folder)
    FabRecImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def refused(folder, *fragments, loaders=(load_landmark_model,)):
    for load in loaders:
        with pytest.raises(CheckpointError) as caught:
            load(folder)
        assert "\n" not in str(caught.value)
        for fragment in fragments:
            assert fragment in str(caught.value)


DAMAGE = {
    "changes": st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), min_size=1, max_size=5),
    "cut": st.one_of(st.just(1.0), st.floats(0, 1)),
}


def loads_or_is_refused(folder, file, content, reach, changes, cut):
    """Write a file with changed bytes within `reach` and without its end; nothing but one clear error may happen."""
    content = bytearray(content)
    for place, value in changes:
        content[min(int(place * reach), len(content) - 1)] = value
    (folder / file).write_bytes(content[: round(cut * len(content))])
    try:
        model, processor = load_landmark_model(folder)
    except CheckpointError as error:
        assert "\n" not in str(error)
    else:
        assert model.config.image_size == processor.size.height
        assert np.isfinite(sum(parameter.numel() for parameter in model.parameters()))
