"""The pictures of an evaluation show what they are said to show."""

import io

import numpy as np
import pytest
from PIL import Image


datasets = pytest.importorskip("datasets")
pytest.importorskip("matplotlib")

from fabrec_hf.evaluation.confidence_plot import draw_confidence  # noqa: E402
from fabrec_hf.evaluation.plots import TILE, draw_error_distribution, draw_worst_faces  # noqa: E402
from fabrec_hf.evaluation.scoring import FaceScores, ScoredFace  # noqa: E402
from fabrec_hf.inference.drawing import confidence_colors  # noqa: E402
from fabrec_hf.model.known_schemes import get_scheme  # noqa: E402


SCHEME = get_scheme("mtfl")
AQUA, CRIMSON = confidence_colors([1.0])[0], confidence_colors([0.0])[0]


def make_scores(errors) -> FaceScores:
    errors = np.asarray(errors, dtype=float)
    points = np.zeros((len(errors), SCHEME.num_landmarks))
    return FaceScores(errors, {}, points, points, (), SCHEME, SCHEME.normalizer, "default", "subpixel", False, False)


@pytest.fixture
def drawn(monkeypatch):
    """What is handed to matplotlib: every curve, and the texts of the axes."""
    from matplotlib.axes import Axes

    curves, axes = {}, []
    plot = Axes.plot

    def record(self, x, y, *args, **kwargs):
        curves[kwargs["label"]] = (np.asarray(x), np.asarray(y), kwargs)
        axes.append(self)
        return plot(self, x, y, *args, **kwargs)

    monkeypatch.setattr(Axes, "plot", record)
    return curves, axes


def test_the_curve_is_the_exact_staircase(drawn):
    curves, axes = drawn
    errors = [4.0, 2.0, np.inf, 12.0, np.nan, 2.0, 99.0, 8.0]
    mask = np.array([1, 1, 0, 0, 0, 0, 0, 0], dtype=bool)
    masks = {"easy": mask, "same": mask, "unscored": np.isnan(errors)}
    picture = draw_error_distribution(make_scores(errors), masks, 10.0, "title", "the box")
    with Image.open(io.BytesIO(picture)) as image:
        assert image.format == "PNG" and image.width > 1000
    whole, easy = curves  # equal subsets share a curve, one without a score has none
    x, y, style = curves[whole]
    assert style["drawstyle"] == "steps-post"
    np.testing.assert_allclose(x, [0, 2, 4, 8, 12, 15])
    np.testing.assert_allclose(y, np.array([0, 2, 3, 4, 5, 5]) / 7 * 100)
    # NME of 2, 2, 4, 8, 12 and 99; areas 0.8, 0.8, 0.6, 0.2 and three times none; 3 of 7 fail.
    assert whole == "all the data: 7 faces, NME 21.17 %, AUC 0.343 and FR 42.86 % at 10 %"
    assert easy == "easy = same: 2 faces, NME 3.00 %, AUC 0.700 and FR 0.00 % at 10 %"
    area = np.sum(np.diff(np.clip(x, 0, 10)) * y[:-1]) / 1000
    assert area == pytest.approx(2.4 / 7)
    assert axes[0].get_xlabel() == "normalized mean error of a face, in % of the box"
    assert axes[0].get_ylabel() == "faces with at most this error (%)"
    assert axes[0].get_title(loc="left") == "title"


def test_all_curves_can_be_told_apart(drawn):
    curves, _ = drawn
    errors = np.linspace(0, 20, 64)
    masks = {f"subset {bit}": (np.arange(64) >> bit & 1).astype(bool) for bit in range(6)}
    draw_error_distribution(make_scores(errors), masks, 10.0, "title", "the box")
    assert len(curves) == 7
    assert len({style["color"] for _, _, style in curves.values()}) == 7


def test_the_plot_is_the_same_every_time():
    arguments = (make_scores([1.0, 2.0, 30.0]), {}, 10.0, "title", "the box")
    assert draw_error_distribution(*arguments) == draw_error_distribution(*arguments)


def make_point_scores(point_scores, point_errors, tolerance=None) -> FaceScores:
    errors, sureness = np.asarray(point_errors, dtype=float), np.asarray(point_scores, dtype=float)
    means = errors.mean(axis=1)
    scheme, normalizer = SCHEME, SCHEME.normalizer
    return FaceScores(
        means, {}, errors, sureness, (), scheme, normalizer, "default", "subpixel", False, False, tolerance
    )


def test_the_confidence_figure_shows_the_orders_and_the_reliability(drawn):
    curves, axes = drawn
    scores = make_point_scores([[0.9, 0.55, 0.55, 0.1]], [[1.0, 2.0, 6.0, 11.0]], tolerance=5.0)
    picture = draw_confidence(scores, "title", "the box")
    with Image.open(io.BytesIO(picture)) as image:
        assert image.format == "PNG" and image.width > 1500
    found = {label: (x.tolist(), y.tolist()) for label, (x, y, _) in curves.items()}
    # Areas: (1 + 3 + 3 + 5) / 4, and (1 + 1.5 + 3 + 5) / 4.
    assert found["ordered by score: area 3.00 %"] == ([25, 75, 100], [1, 3, 5])
    assert found["perfect order: area 2.62 %"] == ([25, 50, 75, 100], [1, 1.5, 3, 5])
    assert found["no order: area 5.00 %"] == ([0, 100], [5, 5])
    assert found["100 % kept, score 0.1 or more: error 5.00 %"] == ([100], [5])
    # Distances of scores and shares found: 0.1, twice 0.05 and 0.1.
    claimed, shares = found["points found, calibration error 0.075"]
    assert claimed == pytest.approx([0.1, 0.55, 0.9]) and shares == pytest.approx([0.0, 0.5, 1.0])
    assert axes[0].get_ylabel() == "mean error of the points kept\n(% of the box)"
    assert axes[-1].get_ylabel() == "share of points within 5 % of the truth"


def test_scores_that_are_not_calibrated_have_no_reliability(drawn):
    curves, _ = drawn
    with Image.open(io.BytesIO(draw_confidence(make_point_scores([[0.5]], [[2.0]]), "one", "the box"))) as image:
        assert image.width < 1000 and len(curves) == 4
    curves.clear()
    with Image.open(io.BytesIO(draw_confidence(make_point_scores([[0.5]], [[np.inf]], 5.0), "none", "box"))) as image:
        assert image.width < 1000 and not curves


def test_many_points_make_a_curve_of_few_knots(drawn):
    curves, _ = drawn
    errors = np.random.default_rng(0).uniform(0, 10, (2000, 5))
    draw_confidence(make_point_scores(10 - errors, errors), "title", "the box")
    (x, y), (perfect_x, perfect_y) = (
        curves[next(label for label in curves if label.startswith(start))][:2] for start in ("ordered", "perfect")
    )
    np.testing.assert_array_equal(x, perfect_x)
    np.testing.assert_allclose(y, perfect_y)
    assert len(x) <= 1000 and x[-1] == 100 and y[-1] == pytest.approx(errors.mean())


def make_faces(count: int, size: int = 200) -> datasets.Dataset:
    gray = Image.new("RGB", (size, size), (90, 90, 90))
    points = [[70.0, 80.0], [130.0, 80.0], [100.0, 110.0], [80.0, 140.0], [120.0, 140.0]]
    rows = {
        "image": [gray] * count,
        "landmarks": [points] * count,
        "box": [[60.0, 60.0, 80.0, 90.0]] * count,
        "name": [f"face {index}" for index in range(count)],
    }
    return datasets.Dataset.from_dict(rows).cast_column("image", datasets.Image())


def count_color(image: Image.Image, color: np.ndarray) -> int:
    return int((np.abs(np.asarray(image).astype(int) - color.astype(int)).max(axis=-1) < 12).sum())


def tile_of(sheet: Image.Image, index: int) -> Image.Image:
    """Find a tile again by the gray of its picture."""
    pixels = np.asarray(sheet).astype(int)
    gray = (np.abs(pixels - 90).max(axis=-1) < 3) | (pixels.max(axis=-1) < 3)
    top = np.flatnonzero(gray.mean(axis=1) > 0.1)[0]
    left = np.flatnonzero(gray[top : top + TILE].mean(axis=0) > 0.3)
    starts = [x for x in left if x - 1 not in left]
    return sheet.crop((starts[index], top, starts[index] + TILE, top + TILE))


def test_annotation_and_prediction_are_drawn_where_they_are():
    faces = make_faces(2)
    annotated = np.array(faces[0]["landmarks"])
    predicted = annotated + [12.0, 0.0]
    sheet = draw_worst_faces(faces, [ScoredFace(1, 20.0, predicted), ScoredFace(0, 0.0, annotated)], "title")
    tile = tile_of(sheet, 0)
    # The crop is 1.32 times the box's height, shown 1.1 times as wide, around its center 4 % of the height higher.
    side, center = 90 * 1.32 * 1.1, np.array([100.0, 60 - 0.2 * 90 + 1.32 * 90 / 2])
    for points, color in ((annotated, AQUA), (predicted, CRIMSON)):
        for x, y in (points + 0.5 - center) / side * TILE + TILE / 2:
            found = np.asarray(tile)[int(y), int(x)].astype(int)
            assert np.abs(found - color).max() < 12, (x, y, found, color)


def test_points_that_are_not_annotated_are_not_drawn():
    faces = make_faces(1)
    rows = faces.to_list()
    predicted = np.array(rows[0]["landmarks"]) + 10.0
    face = [ScoredFace(0, 20.0, predicted)]
    before = count_color(tile_of(draw_worst_faces(faces, face, ""), 0), CRIMSON)
    rows[0]["landmarks"][1:] = [[np.nan, np.nan]] * 4
    after = count_color(
        tile_of(draw_worst_faces(datasets.Dataset.from_list(rows, features=faces.features), face, ""), 0), CRIMSON
    )
    assert after == pytest.approx(before / 5, rel=0.2)


@pytest.mark.parametrize("count", [1, 4, 5])
def test_any_number_of_faces_fits(count):
    faces = make_faces(count).remove_columns("name")
    points = np.array(faces[0]["landmarks"])
    worst = [
        ScoredFace(row, np.inf if row == 0 else 5.0, points * np.nan if row == 0 else points) for row in range(count)
    ]
    sheet = draw_worst_faces(faces, worst, "a title that is far too long for the width of the sheet " * 8)
    assert sheet.mode == "RGB" and sheet.height > TILE * -(-count // 4)
    assert draw_worst_faces(faces, [], "no face").width > 0
