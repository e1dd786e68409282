"""The error to expect of each landmark, in pixels of its picture."""

import csv
import io

import numpy as np
import pytest
import torch
from PIL import Image

from fabrec_hf import FabRecForLandmarkDetection, get_scheme
from fabrec_hf.inference.expected_pixels import add_expected_errors
from fabrec_hf.inference.face_records import picture_record, picture_table
from fabrec_hf.inference.landmark_finder import LandmarkFinder
from support.tiny_checkpoints import save_landmarks


MODEL = {
    "weights": [-0.5, 0.3, 0.1, 0.2],
    "offsets": [0.1, 0.3, 0.5, 0.7, 0.9],
    "spread": 0.5,
    "tolerance": 5.0,
    "count": 50,
}


def test_pixels_by_hand(tmp_path):
    config = FabRecForLandmarkDetection.from_pretrained(save_landmarks(tmp_path / "plain")).config
    points = torch.tensor([[100.0, 50.0], [140.0, 80.0], [1, 1], [2, 2], [3, 3]])  # the eyes are 50 px apart
    face = {"keypoints": points, "scores": torch.tensor([0.5, 0.9, 0.5, 0.5, 0.5]), "bbox": torch.zeros(4)}
    add_expected_errors([face], config)
    assert "expected_errors" not in face  # heights of heatmaps tell no errors
    config.error_model = MODEL
    add_expected_errors([face], config)
    # Half of such points err by less than 5 % of 50 px. A log-normal error has the mean exp(s^2 / 2) times its median,
    # and nine of ten err by less than the tolerance where the median is exp(-1.2816 s) of it.
    mean = 2.5 * np.exp(0.125)
    assert face["expected_errors"].tolist() == pytest.approx(
        [mean, mean * np.exp(-1.28155 * 0.5), mean, mean, mean], rel=1e-4
    )
    nowhere = {"keypoints": torch.ones(5, 2), "scores": torch.full((5,), 0.5), "bbox": torch.zeros(4)}
    add_expected_errors([nowhere], config)
    assert "expected_errors" not in nowhere


def test_a_finder_tells_them_also_of_points_that_it_leaves_out(tmp_path):
    folder = save_landmarks(tmp_path / "calibrated")
    model = FabRecForLandmarkDetection.from_pretrained(folder)
    model.config.error_model = MODEL
    model.save_pretrained(folder)
    finder = LandmarkFinder(str(folder))
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    (face,) = finder.find([picture], [[(8.0, 8.0, 48.0, 48.0)]])[0]
    scheme = get_scheme("mtfl")
    first, second = (face["keypoints"][list(end)].mean(0) for end in scheme.normalizer.points)
    length = float((first - second).norm())
    percent = 100 * face["expected_errors"] / length
    # What is expected of a point of score s is at the share s of the law of errors.
    law = torch.distributions.Normal(torch.log(percent) - 0.125, 0.5)
    torch.testing.assert_close(law.cdf(torch.tensor(5.0).log()).float(), face["scores"].float(), atol=1e-3, rtol=0)
    limit = float(face["scores"].median())
    (same,) = finder.find([picture], [[(8.0, 8.0, 48.0, 48.0)]], min_score=limit)[0]
    left_out = same["keypoints"].isnan().any(-1)
    assert left_out.tolist() == (face["scores"] < limit).tolist() and left_out.any()
    torch.testing.assert_close(same["expected_errors"], face["expected_errors"])
    record = picture_record(tmp_path / "a.png", (64, 64), [same], "m", "mtfl", scheme.point_names)
    rows = list(csv.DictReader(io.StringIO(picture_table(record))))
    assert [float(row["expected_error"]) for row in rows] == record["faces"][0]["expected_errors"]
    assert record["faces"][0]["expected_errors"] == pytest.approx(face["expected_errors"].tolist(), abs=0.006)
