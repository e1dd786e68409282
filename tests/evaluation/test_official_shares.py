"""A part of a published test set, weighted to the whole."""

import numpy as np
import pytest

from fabrec_hf.evaluation.official_shares import WHOLE_SETS, raking_weights, weigh_part
from fabrec_hf.evaluation.reports import describe_part


def test_one_group_by_hand():
    # Three of four faces belong to a group of which the whole set has a quarter.
    weights = raking_weights(np.array([[True], [True], [True], [False]]), np.array([0.25]))
    assert weights == pytest.approx([1 / 12, 1 / 12, 1 / 12, 3 / 4])


def test_every_group_gets_its_share():
    groups = np.random.default_rng(0).random((200, 3)) < [0.5, 0.2, 0.7]
    weights = raking_weights(groups, np.array([0.1, 0.3, 0.4]))
    assert weights @ groups == pytest.approx([0.1, 0.3, 0.4], abs=1e-6)
    assert weights.sum() == pytest.approx(1) and (weights > 0).all()
    with pytest.raises(ValueError, match="within and without"):
        raking_weights(np.ones((3, 1), dtype=bool), np.array([0.5]))


def test_a_part_of_wflw_is_weighed_and_the_whole_is_not():
    faces, counts = WHOLE_SETS["wflw"]
    random = np.random.default_rng(1)
    masks = {name: random.random(300) < 0.3 for name in counts}
    errors = random.uniform(5, 15, 300)
    errors[0] = np.nan
    found = weigh_part(errors, masks, "wflw")
    groups = np.stack(list(masks.values()), axis=1)[1:]
    weights = raking_weights(groups, np.array(list(counts.values())) / faces)
    assert found["nme"] == pytest.approx(weights @ errors[1:]) and (found["faces"], found["of"]) == (299, 2500)
    assert found["none"] == pytest.approx(errors[1:][~groups.any(1)].mean())
    words = describe_part({"weighted": found})
    assert words.startswith("299 of the 2,500 test faces") and f"{found['nme']:.2f} %" in words
    assert weigh_part(np.ones(2500), masks, "wflw") is None and weigh_part(errors, masks, "300w") is None
    assert weigh_part(errors, {"pose": masks["pose"]}, "wflw") is None
    assert describe_part({"weighted": None}) == describe_part({}) == ""
