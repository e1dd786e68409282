"""Calibrated scores, and whether scores order points by their errors."""

import itertools

import numpy as np
import pytest
import torch


stats = pytest.importorskip("scipy.stats")

from fabrec_hf import FabRecForLandmarkDetection, get_scheme  # noqa: E402
from fabrec_hf.errors import DataError  # noqa: E402
from fabrec_hf.learning.score_calibration import fit_error_model  # noqa: E402
from fabrec_hf.metrics.confidence import (  # noqa: E402
    area_under_risk_coverage,
    area_under_roc,
    rank_correlation,
    reliability,
    risk_coverage,
    summarize_confidence,
)
from fabrec_hf.model.error_model import expected_errors, gather_evidence, score_points  # noqa: E402
from support.tiny_models import pictures, tiny_model  # noqa: E402


def test_rank_correlation_by_hand():
    # Ranks of the scores 1 2 3 4, of the errors 4 2 3 1: rho = 1 - 6 * (9 + 0 + 0 + 9) / (4 * 15) = -0.8.
    assert rank_correlation([0.1, 0.2, 0.3, 0.4], [9.0, 2.0, 3.0, 1.0]) == pytest.approx(0.8)
    assert rank_correlation([0.1, 0.2, 0.9], [np.inf, 2.0, 0.0]) == pytest.approx(1.0)
    assert np.isnan(rank_correlation([0.5, 0.5], [1.0, 2.0])) and np.isnan(rank_correlation([0.5], [1.0]))
    with pytest.raises(ValueError, match="NaN"):
        rank_correlation([0.1, 0.2], [np.nan, 1.0])
    with pytest.raises(ValueError, match="2 scores but 3 errors"):
        risk_coverage([0.1, 0.2], [1.0, 2.0, 3.0])


def test_risk_against_coverage_by_hand():
    coverage, risk = risk_coverage([0.9, 0.5, 0.5, 0.1], [1.0, 2.0, 6.0, 11.0])
    assert coverage.tolist() == [0.25, 0.75, 1.0]  # the two of 0.5 come together
    assert risk.tolist() == [1.0, 3.0, 5.0]
    assert area_under_risk_coverage([0.9, 0.5, 0.5, 0.1], [1.0, 2.0, 6.0, 11.0]) == pytest.approx(
        0.25 * 1 + 0.5 * 3 + 0.25 * 5
    )


def test_no_order_has_a_smaller_area_than_that_of_the_errors():
    errors = np.array([3.0, 1.0, 4.0, 1.5, 9.0])
    areas = [area_under_risk_coverage(order, errors) for order in itertools.permutations(range(5))]
    assert area_under_risk_coverage(-errors, errors) == pytest.approx(min(areas))
    assert area_under_risk_coverage(np.ones(5), errors) == pytest.approx(errors.mean())


def test_a_summary_by_hand():
    """Five points in two faces, one of them with an annotation missing, one without a score, one not predicted."""
    nan, inf = np.nan, np.inf
    scores = [[0.9, 0.7, 0.7, 0.5], [0.2, 0.99, nan, 0.6]]
    errors = [[1.0, 2.0, 6.0, 3.0], [13.0, nan, 4.0, inf]]
    found = summarize_confidence(scores, errors, tolerance=5.0)
    assert found["points"] == 5 and found["left_out"] == 2  # what is not annotated is not left out: it is not there
    # Scores rank 5, 3.5, 3.5, 2, 1 and errors 1, 2, 4, 3, 5: covariance -8 over sqrt(9.5 * 10).
    assert found["rank_correlation"] == pytest.approx(8 / 95**0.5)
    # Shares of 1, 3, 4 and 5 in 5 with means 1, 3, 3 and 5; a perfect order has the means 1, 1.5, 2, 3 and 5.
    assert found["area_under_risk_coverage"] == pytest.approx(0.2 * 1 + 0.4 * 3 + 0.2 * 3 + 0.2 * 5)
    assert found["perfect_order"] == pytest.approx((1 + 1.5 + 2 + 3 + 5) / 5)
    assert found["mean_error"] == pytest.approx(5.0)
    assert found["kept"] == pytest.approx({"share": 0.8, "score": 0.5, "error": 3.0})
    # Three of five are found; bins of 0.2, 0.5, 0.7 (twice, one found) and 0.9: distances 0.2, 0.5, 0.2 twice, 0.1.
    assert found["calibration"] == pytest.approx({"tolerance": 5.0, "score": 0.6, "found": 0.6, "error": 1.2 / 5})
    assert "calibration" not in summarize_confidence(scores, errors)


def test_a_summary_of_what_cannot_be_ranked():
    one = summarize_confidence([[0.4]], [[7.0]])
    assert one["rank_correlation"] is None and one["kept"] == {"share": 1.0, "score": 0.4, "error": 7.0}
    assert one["area_under_risk_coverage"] == one["perfect_order"] == one["mean_error"] == 7.0
    equal = summarize_confidence(np.full((2, 3), 0.5), [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], tolerance=3.0)
    assert equal["rank_correlation"] is None and equal["area_under_risk_coverage"] == pytest.approx(3.5)
    assert equal["kept"] == pytest.approx({"share": 1.0, "score": 0.5, "error": 3.5})
    assert equal["calibration"]["error"] == pytest.approx(0.0)  # half of them are found, as they say
    nothing = summarize_confidence([[np.nan, np.inf, 0.3]], [[1.0, 2.0, np.inf]])
    assert nothing == {"points": 0, "left_out": 3}
    assert summarize_confidence([[0.5]], [[np.nan]]) == {"points": 0, "left_out": 0}


def test_the_threshold_of_a_summary_keeps_the_points_when_it_is_typed():
    scores = np.array([0.123456, 0.25, 0.345678, 0.9, 0.95])
    kept = summarize_confidence(scores, [5.0, 4.0, 3.0, 2.0, 1.0])["kept"]
    assert kept == pytest.approx({"share": 0.8, "score": 0.25, "error": 2.5})
    kept = summarize_confidence(scores + 1e-5, [5.0, 4.0, 3.0, 2.0, 1.0])["kept"]
    assert kept["score"] == float(f"{kept['score']:g}") <= 0.25001 and kept["share"] == 0.8


def test_reliability_by_hand():
    scores, found = [0.0, 0.12, 0.18, 0.95, 1.0, 1.0], [False, True, False, True, True, False]
    claimed, shares, counts = reliability(scores, found)
    assert claimed == pytest.approx([0.0, 0.15, 2.95 / 3]) and shares == pytest.approx([0.0, 0.5, 2 / 3])
    assert counts.tolist() == [1, 2, 3]


def made_faces(count=400, points=12, seed=0):
    """Faces whose errors follow a law: log error = a - h + 0.5 d + 0.3 (second move) + own offset + noise."""
    random = np.random.default_rng(seed)
    landmarks = random.uniform(0.2, 0.8, (count, points, 2))
    heights = random.uniform(0.1, 1, (count, points))
    size = np.sqrt(((landmarks - landmarks.mean(1, keepdims=True)) ** 2).sum(-1).mean(1))
    disagreement = random.uniform(0.02, 0.3, (count, points))
    drawn = landmarks + np.stack([disagreement * size[:, None], np.zeros((count, points))], -1)
    offsets = np.linspace(0.9, 2.2, points)
    lengths = random.uniform(0, 0.2, (count, points, 2))
    moves = lengths * size[:, None, None]
    expected = offsets - np.log(heights) + 0.5 * np.log(disagreement + 0.01) + 0.3 * np.log(lengths[..., 1] + 0.003)
    errors = np.exp(expected + 0.3 * random.standard_normal((count, points)))
    return heights, drawn, landmarks, moves, errors, expected


def test_an_error_model_finds_the_law_of_errors():
    heights, drawn, landmarks, moves, errors, expected = made_faces(4000)
    found = fit_error_model(heights, drawn, landmarks, moves, errors, tolerance=1.0)
    assert found.weights[:4] == pytest.approx([-1, 0.5, 0, 0.3], abs=0.06)
    assert np.abs(found.weights[4:]).max() < 0.2  # of means over a face little is left of what is known beforehand
    assert found.spread == pytest.approx(0.3, abs=0.03) and found.count == errors.size and found.tolerance == 1.0
    # The score is the probability of the normal law, which SciPy knows, too; and the mean error that of a log-normal.
    law = stats.norm(np.log(1.0), 0.3)
    evidence = gather_evidence(*(torch.tensor(values) for values in (heights, drawn, landmarks, moves)))
    scores = score_points(evidence, found.to_dict())
    assert np.abs(scores.numpy() - law.sf(expected)).mean() < 0.02
    sure = (scores > 0.01) & (scores < 0.99)
    told = expected_errors(scores, found.to_dict())[sure].numpy()
    assert told == pytest.approx(stats.lognorm(0.3, scale=np.exp(expected)).mean()[sure.numpy()], rel=0.2)
    rate = float((errors <= 1)[(scores > 0.4).numpy() & (scores < 0.6).numpy()].mean())
    assert rate == pytest.approx(0.5, abs=0.05)


def test_a_few_odd_faces_do_not_make_what_is_no_face_score_high():
    """In these four faces, higher heatmaps err more, and points on which all agree, too."""
    heights, drawn, landmarks, moves, errors, _ = made_faces(4, seed=5)
    errors = np.exp(2 * heights) / (1 + 20 * np.linalg.norm(drawn - landmarks, axis=-1))
    found = fit_error_model(heights, drawn, landmarks, moves, errors)
    height, disagreement, first, second = np.array(found.weights).reshape(2, 4).T
    # Of two moves that are as much longer, the error may be larger and not smaller.
    assert (height <= 0).all() and (disagreement >= 0).all() and (second >= 0).all() and (first + second >= 0).all()
    assert any(found.weights)
    known = gather_evidence(*(torch.tensor(values) for values in (heights, drawn, landmarks, moves)))
    nothing = gather_evidence(
        torch.full((1, 12), 0.02, dtype=torch.double),
        torch.tensor(landmarks[:1]).flip(1),
        torch.tensor(landmarks[:1]),
        torch.full((1, 12, 2), 0.05, dtype=torch.double),
    )
    lowest = score_points(known, found.to_dict()).mean(1).min()
    assert float(score_points(nothing, found.to_dict()).mean()) < float(lowest)


def test_the_evidence_by_hand():
    landmarks = torch.tensor([[[0.4, 0.5], [0.6, 0.5]]])  # a face of size 0.1 about its middle
    drawn = torch.tensor([[[0.4, 0.52], [0.6, 0.5]]])
    moves = torch.tensor([[[0.01, 0.0], [0.004, 0.002]]])
    evidence = gather_evidence(torch.tensor([[0.5, 0.0]]), drawn, landmarks, moves)
    own = np.log([[0.5, 0.21, 0.103, 0.003], [0.02, 0.01, 0.043, 0.023]])
    np.testing.assert_allclose(evidence[0], np.hstack([own, np.tile(own.mean(0), (2, 1))]), rtol=1e-5)


def test_what_was_not_annotated_or_not_predicted_is_left_out():
    heights, drawn, landmarks, moves, errors, _ = made_faces(12)
    whole = fit_error_model(heights[2:], drawn[2:], landmarks[2:], moves[2:], errors[2:])
    landmarks[0], errors[1] = np.nan, np.nan
    assert fit_error_model(heights, drawn, landmarks, moves, errors) == whole
    errors[2, 0] = np.inf  # not found: as bad as can be
    assert fit_error_model(heights, drawn, landmarks, moves, errors).offsets[0] > whole.offsets[0]
    with pytest.raises(DataError, match="36 points are too few"):
        fit_error_model(heights[:3], drawn[:3], np.nan_to_num(landmarks[:3]), moves[:3], np.ones((3, 12)))


@pytest.mark.parametrize("weights", [[-0.5, 0.3, 0.1, 0.2], [-0.5, 0.3, 0.1, 0.2, 0.1, -0.1, 0.05, 0.2]], ids=len)
def test_a_checkpoint_with_an_error_model_scores_by_it_everywhere(weights, tmp_path):
    scheme = get_scheme("mtfl").to_dict()
    settings = {"point_readout": True, "flip_average": True, "local_refinement": True}
    model = tiny_model(landmark_scheme=scheme, **settings)
    torch.nn.init.normal_(model.point_readout.weight, std=0.05)
    torch.nn.init.normal_(model.local_refinement.gain, std=0.02)
    plain = model(pictures())
    assert plain.moves.min() > 0
    values = {"weights": weights, "offsets": [0.1, 0.5, 0.9, 1.3, 1.7], "spread": 0.6}
    model.config.error_model = values | {"tolerance": 5.0, "count": 50}
    model.save_pretrained(tmp_path)
    evidence = gather_evidence(plain.scores, plain.drawn, plain.landmarks, plain.moves)
    # Those of before there was a closer look say nothing of moves.
    by_hand = weights if len(weights) == 8 else [*weights[:2], 0, 0, *weights[2:], 0, 0]
    mean = evidence @ torch.tensor(by_hand) + torch.tensor(values["offsets"])
    expected = score_points(evidence, model.config.error_model)
    law = stats.norm(mean.detach().numpy(), 0.6)
    np.testing.assert_allclose(expected.detach().numpy(), law.cdf(np.log(5.0)), atol=1e-5)
    assert len(expected.flatten().unique()) == 10
    loaded = FabRecForLandmarkDetection.from_pretrained(tmp_path)
    for twin in (loaded, loaded.fuse()):
        torch.testing.assert_close(twin(pictures()).scores, expected, atol=1e-4, rtol=0)
    for wrong in ({"weights": [1.0]}, {"offsets": [0.1]}, {"spread": 0.0}, {"tolerance": -1.0}):
        with pytest.raises(Exception, match="error_model needs"):
            tiny_model(error_model=model.config.error_model | wrong)


def test_a_checkpoint_with_a_curve_of_heights_still_scores_by_it(tmp_path):
    from fabrec_hf import FabRecConfig

    torch.manual_seed(0)
    config = {"image_size": 32, "latent_size": 8, "widths": [8, 8, 8, 8], "heatmap_size": 16, "num_landmarks": 30}
    plain = FabRecForLandmarkDetection(FabRecConfig(**config)).eval()
    plain.heatmap_head.weight.data.mul_(30)  # spreads the heights
    images = torch.rand(3, 3, 32, 32)
    heights = plain(images).scores.detach()
    knots = np.quantile(heights.numpy(), [0.1, 0.4, 0.9]).tolist()
    curve = {"heights": knots, "scores": [0.2, 0.2, 0.9], "tolerance": 5.0, "count": 99}
    plain.config.score_calibration = curve
    plain.save_pretrained(tmp_path)
    calibrated = FabRecForLandmarkDetection.from_pretrained(tmp_path)
    expected = np.interp(heights.numpy(), curve["heights"], curve["scores"])
    assert len(np.unique(expected.round(3))) > 20
    for model in (calibrated, calibrated.fuse()):
        np.testing.assert_allclose(model(images).scores.detach().numpy(), expected, atol=1e-5)
    with pytest.raises(Exception, match="rising heights"):
        FabRecConfig(**config, score_calibration=curve | {"heights": [0.1, 0.1, 0.6]})


def test_the_area_under_the_roc_curve_counts_pairs_by_hand():
    # 0.9 beats both, 0.5 ties with one and beats the other: 3.5 of 4 pairs.
    assert area_under_roc(np.array([0.9, 0.5]), np.array([0.5, 0.1])) == 0.875
    assert np.isnan(area_under_roc(np.array([]), np.array([0.5])))
