"""The normalizer by name: published points, two points of any scheme, and what cannot be meant."""

import math

import numpy as np
import pytest

from fabrec_hf import metrics
from fabrec_hf.errors import SchemeError
from fabrec_hf.metrics import named_normalizer
from fabrec_hf.model.known_schemes import LandmarkScheme, Normalizer, get_scheme


SCHEMES = {"300w": 68, "wflw": 98, "aflw": 19, "mtfl": 5}

# The ends as papers and data sets publish them, first to last point of each.
PUBLISHED = {
    ("300w", "inter_ocular"): ((36, 36), (45, 45)),
    ("300w", "inter_pupil"): ((36, 41), (42, 47)),
    ("wflw", "inter_ocular"): ((60, 60), (72, 72)),
    ("wflw", "inter_pupil"): ((96, 96), (97, 97)),
    ("aflw", "inter_ocular"): ((6, 6), (11, 11)),
    ("aflw", "inter_pupil"): ((7, 7), (10, 10)),
    ("mtfl", "inter_pupil"): ((0, 0), (1, 1)),
}


@pytest.mark.parametrize(("scheme", "name"), PUBLISHED)
def test_named_lengths_are_measured_between_the_published_points(scheme, name):
    points = np.random.default_rng(0).uniform(0, 100, (3, SCHEMES[scheme], 2))
    lengths = metrics.normalizing_distance(points, named_normalizer(name, scheme))
    for face, length in zip(points.tolist(), lengths, strict=True):
        ends = []
        for first, last in PUBLISHED[scheme, name]:
            around = face[first : last + 1]
            ends.append([sum(point[axis] for point in around) / len(around) for axis in (0, 1)])
        assert length == pytest.approx(math.dist(*ends), rel=1e-12)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_box_lengths_need_no_points(scheme):
    points = np.full((1, SCHEMES[scheme], 2), np.nan)
    boxes = [[7, 7, 30, 40]]
    for name, length in {"box": 40, "box_diagonal": 50}.items():
        assert metrics.normalizing_distance(points, named_normalizer(name, scheme), boxes).tolist() == [length]


def test_nothing_given_means_the_schemes_own():
    assert named_normalizer(None, "aflw") == Normalizer("box")
    assert named_normalizer(None, "wflw") == named_normalizer("inter_ocular", "wflw")
    assert named_normalizer(None, "mtfl") == named_normalizer("inter_pupil", "mtfl")
    own = {"name": "mine", "num_landmarks": 4, "normalizer": {"kind": "points", "points": [3, 1]}}
    assert named_normalizer(None, own) == Normalizer("points", ((3,), (1,)))


@pytest.mark.parametrize(
    ("given", "points"),
    [
        ([36, 45], ((36,), (45,))),
        ((np.int64(36), np.int64(45)), ((36,), (45,))),
        (np.array([36, 45]), ((36,), (45,))),
        (["left_eye_1", "right_eye_1"], ((36,), (45,))),
        (["chin", 27], ((8,), (27,))),
        ([["left_eye_1", "left_eye_4"], 45], ((36, 39), (45,))),
        ([(36, 39), (42, 45)], ((36, 39), (42, 45))),
        ({"kind": "points", "points": [36, 45]}, ((36,), (45,))),
        (Normalizer("points", ((36,), (45,))), ((36,), (45,))),
    ],
)
def test_two_points_in_every_form(given, points):
    assert named_normalizer(given, get_scheme("300w")) == Normalizer("points", points)


def test_a_checkpoints_scheme_is_known_by_its_points_and_not_by_its_name():
    values = get_scheme("300w").to_dict() | {"name": "ours", "normalizer": {"kind": "box"}}
    assert named_normalizer("inter_ocular", values).points == ((36,), (45,))
    renamed = LandmarkScheme("300w", 68, point_names=tuple(f"point {i}" for i in range(68)))
    with pytest.raises(ValueError, match="does not say which points are its outer eye corners"):
        named_normalizer("inter_ocular", renamed)


@pytest.mark.parametrize(
    ("given", "scheme", "message"),
    [
        (
            "inter_ocular",
            "mtfl",
            "mtfl does not say which points are its outer eye corners, so",
        ),
        ("inter_ocular", "mtfl", "give box, box_diagonal, inter_pupil, or two points as a list, by name or index"),
        ("inter_pupil", {"name": "mine", "num_landmarks": 4}, "mine does not say which points are its eye centers"),
        ("inter_pupil", {"name": "mine", "num_landmarks": 4}, "give box, box_diagonal, or two points as a list"),
        ("iod", "300w", "'iod'; there are inter_ocular, inter_pupil, box and box_diagonal"),
        ("box", "68", "'68'; built in are 300w"),
        (["left_ear", 3], "300w", "no point 'left_ear'; its points are left_jaw_1, left_jaw_2"),
        (["nose", 3], {"name": "mine", "num_landmarks": 4}, "no point 'nose'; it names none, and an index will do"),
        ([36, 68], "300w", "names point 68, outside 0 to 67"),
        ([-1, 3], "300w", "names point -1, outside 0 to 67"),
        ({"kind": "points", "points": [0, 5]}, "mtfl", "names point 5, outside 0 to 4"),
        (Normalizer("points", ((0,), (7,))), "mtfl", "names point 7, outside 0 to 4"),
        ([3, 3], "300w", "two different ends"),
        ([3, []], "300w", "two different ends"),
        ([3, 4, 5], "300w", "two points as a list, or a mapping with its kind, not [3, 4, 5]"),
        ([3.0, 4.0], "300w", "must be an integer, not 3.0"),
        (7, "300w", "two points as a list, or a mapping with its kind, not 7"),
        ({"kind": "pupils"}, "300w", "not 'pupils'"),
        ({"points": [1, 2], "size": 3}, "300w", "does not know size"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(given, scheme, message):
    with pytest.raises(SchemeError, match="^[^\n]*$") as error:
        named_normalizer(given, scheme)
    assert message in str(error.value)


def test_the_same_points_score_by_the_ratio_of_the_lengths():
    rng = np.random.default_rng(1)
    targets = rng.uniform(0, 100, (1, 68, 2))
    predictions = targets + 1
    ocular, pupil = (named_normalizer(name, "300w") for name in ("inter_ocular", "inter_pupil"))
    lengths = [metrics.normalizing_distance(targets, length)[0] for length in (ocular, pupil)]
    errors = [metrics.normalized_mean_error(predictions, targets, length)[0] for length in (ocular, pupil)]
    assert errors[0] / errors[1] == pytest.approx(lengths[1] / lengths[0])
    assert errors[0] == pytest.approx(100 * math.sqrt(2) / lengths[0])
