"""Landmark schemes: published index facts, mirroring, validation and conversions."""

import json

import numpy as np
import pytest
import torch

from fabrec_hf.common.choices import TO_SCHEMES
from fabrec_hf.model.known_schemes import (
    LandmarkScheme,
    Normalizer,
    conversions_of,
    convert_landmarks,
    get_scheme,
    infer_flip_pairs,
    known_name,
    known_normalizers,
    sources_of,
)
from support.faces import SHARED


NAMES = ("300w", "wflw", "aflw", "mtfl")

# The published mirror tables, written out as runs: (first of one side, last of it, where its first point goes to).
PUBLISHED_FLIPS = {
    "300w": [(0, 7, 16), (17, 21, 26), (31, 32, 35), (36, 39, 45), (40, 41, 47), (48, 50, 54), (55, 56, 59)]
    + [(60, 61, 64), (65, 65, 67)],
    "wflw": [(0, 15, 32), (33, 37, 46), (38, 41, 50), (55, 56, 59), (60, 64, 72), (65, 67, 75), (76, 78, 82)]
    + [(83, 84, 87), (88, 89, 92), (93, 93, 95), (96, 96, 97)],
    "aflw": [(0, 2, 5), (6, 8, 11), (12, 12, 14), (15, 15, 17)],
    "mtfl": [(0, 0, 1), (3, 3, 4)],
}


@pytest.mark.parametrize(("name", "count"), list(zip(NAMES, (68, 98, 19, 5), strict=True)))
def test_flip_is_the_published_involution(name, count):
    scheme = get_scheme(name)
    expected = list(range(count))
    for first, last, opposite in PUBLISHED_FLIPS[name]:
        for step in range(last - first + 1):
            expected[first + step] = opposite - step
            expected[opposite - step] = first + step
    assert scheme.num_landmarks == len(scheme.point_names) == count
    assert scheme.flip_index == expected
    assert [scheme.flip_index[i] for i in scheme.flip_index] == list(range(count))


def test_only_the_middle_of_the_face_mirrors_to_itself():
    still = {name: [i for i, j in enumerate(get_scheme(name).flip_index) if i == j] for name in NAMES}
    assert still["300w"] == [8, 27, 28, 29, 30, 33, 51, 57, 62, 66]
    assert still["wflw"] == [16, 51, 52, 53, 54, 57, 79, 85, 90, 94]
    assert still["aflw"] == [13, 16, 18]
    assert still["mtfl"] == [2]


@pytest.mark.parametrize("name", NAMES)
def test_parts_cover_every_point_once_and_edges_mirror_to_edges(name):
    scheme = get_scheme(name)
    assert sorted(point for part in scheme.parts.values() for point in part) == list(range(scheme.num_landmarks))
    edges = {frozenset(edge) for edge in scheme.edges}
    assert len(edges) == len(scheme.edges)
    assert {frozenset(scheme.flip_index[point] for point in edge) for edge in edges} == edges


def test_closed_loops_are_closed():
    edges = {frozenset(edge) for edge in get_scheme("300w").edges}
    assert {frozenset(pair) for pair in [(41, 36), (47, 42), (59, 48), (67, 60)]} <= edges
    assert frozenset((16, 17)) not in edges
    # 16 jaw, 4 + 4 brows, 3 bridge, 4 nostrils, 6 + 6 eyes, 12 outer and 8 inner lips
    assert len(edges) == 63


def test_normalizers_of_the_built_in_schemes():
    assert get_scheme("300w").normalizer.to_dict() == {"kind": "points", "points": [36, 45]}
    assert get_scheme("wflw").normalizer.to_dict() == {"kind": "points", "points": [60, 72]}
    assert get_scheme("aflw").normalizer.to_dict() == {"kind": "box"}
    assert get_scheme("mtfl").normalizer.to_dict() == {"kind": "points", "points": [0, 1]}


def test_named_normalizers_join_the_points_that_bear_the_names():
    ends = {
        "300w": {
            "inter_ocular": [["left_eye_1"], ["right_eye_1"]],
            "inter_pupil": [
                [f"{side}_eye_{i}" for i in order] for side, order in (("left", "123456"), ("right", "432165"))
            ],
        },
        "wflw": {"inter_ocular": [["left_eye_1"], ["right_eye_1"]], "inter_pupil": [["left_pupil"], ["right_pupil"]]},
        "aflw": {
            "inter_ocular": [["left_eye_left"], ["right_eye_right"]],
            "inter_pupil": [["left_eye_center"], ["right_eye_center"]],
        },
        "mtfl": {"inter_pupil": [["left_eye"], ["right_eye"]]},
    }
    for name in NAMES:
        scheme, known = get_scheme(name), known_normalizers(get_scheme(name))
        assert set(known) == {"box", "box_diagonal", *ends[name]}
        assert (known["box"], known["box_diagonal"]) == (Normalizer("box"), Normalizer("box_diagonal"))
        for length, expected in ends[name].items():
            named = [[scheme.point_names[point] for point in end] for end in known[length].points]
            assert named == expected
            # mirroring the face exchanges the two ends
            mirrored = {frozenset(scheme.flip_index[point] for point in end) for end in known[length].points}
            assert mirrored == {frozenset(end) for end in known[length].points}
        assert scheme.normalizer in known.values()


def test_a_scheme_of_unknown_points_has_only_its_box():
    assert set(known_normalizers(LandmarkScheme("300w", 68))) == {"box", "box_diagonal"}
    same_points = LandmarkScheme("mine", 5, point_names=get_scheme("mtfl").point_names)
    assert known_normalizers(same_points)["inter_pupil"].points == ((0,), (1,))


@pytest.mark.parametrize("name", NAMES)
def test_scheme_survives_json(name):
    scheme = get_scheme(name)
    text = json.dumps(scheme.to_dict())
    assert LandmarkScheme.from_dict(json.loads(text)) == scheme


def test_custom_scheme_from_plain_data():
    names = ["left ear", "right ear", "beak"]
    scheme = LandmarkScheme.from_dict(
        {
            "name": "bird",
            "num_landmarks": 3,
            "point_names": names,
            "flip_pairs": [[1, 0]],
            "normalizer": {"kind": "points", "points": [[0, 1], 2]},
        }
    )
    assert scheme.flip_index == [1, 0, 2]
    assert scheme.normalizer.points == ((0, 1), (2,))
    assert scheme.to_dict()["normalizer"] == {"kind": "points", "points": [[0, 1], 2]}
    bare = LandmarkScheme("one", 1)
    assert bare.flip_index == [0]
    assert bare.normalizer == Normalizer("box")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"flip_pairs": [[0, 5]]}, "flip_pairs names point 5, outside 0 to 4"),
        ({"flip_pairs": [[-1, 2]]}, "flip_pairs names point -1"),
        ({"flip_pairs": [[0, 1], [1, 2]]}, "point 1 in two pairs"),
        ({"flip_pairs": [[2, 2]]}, "point 2 to itself"),
        ({"flip_pairs": [[0, 1, 2]]}, "two points"),
        ({"flip_pairs": "01"}, "must be a list"),
        ({"flip_pairs": [[0, 1.0]]}, "must be an integer, not 1.0"),
        ({"point_names": ["a", "b"]}, "2 point names were given for 5"),
        ({"point_names": ["a", "b", "c", "d", "a"]}, "'a' stands twice"),
        ({"point_names": ["a", "b", "c", "d", 5]}, "must be a string"),
        ({"normalizer": {"kind": "points", "points": [0, 9]}}, "normalizer names point 9"),
        ({"normalizer": {"kind": "points", "points": [3, 3]}}, "two different ends"),
        ({"normalizer": {"kind": "points", "points": [3]}}, "two different ends"),
        ({"normalizer": {"kind": "box", "points": [0, 1]}}, "takes no points"),
        ({"normalizer": {"kind": "pupils"}}, "'box_diagonal', not 'pupils'"),
        ({"normalizer": {"kind": "box", "size": 1}}, "does not know size"),
        ({"normalizer": None}, "must be a mapping"),
        ({"parts": {"nose": [7]}}, "part 'nose' names point 7"),
        ({"parts": {"nose": []}}, "at least one point"),
        ({"parts": {"nose": [1, 1]}}, "none of them twice"),
        ({"parts": [[0]]}, "parts must be a mapping"),
        ({"edges": [[0, 8]]}, "edges names point 8"),
        ({"num_landmarks": 0}, "at least 1"),
        ({"num_landmarks": True}, "must be an integer"),
        ({"name": ""}, "needs a name"),
        ({"flip_pair": [[0, 1]]}, "does not know flip_pair; its keys are name"),
    ],
)
def test_contradictions_are_refused_in_one_line(values, message):
    with pytest.raises(ValueError, match="^[^\n]*$") as error:
        LandmarkScheme.from_dict({"name": "mine", "num_landmarks": 5, **values})
    assert message in str(error.value)


def test_missing_keys_and_unknown_names():
    with pytest.raises(ValueError, match="needs name and num_landmarks"):
        LandmarkScheme.from_dict({})
    with pytest.raises(ValueError, match="'68'; built in are 300w, wflw, aflw, mtfl"):
        get_scheme("68")


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        (["left_eye", "right_eye", "nose"], ((0, 1),)),
        (["RightEye", "noseTip", "LeftEye"], ((0, 2),)),
        (["eyeLeft", "eyeRight"], ((0, 1),)),
        (["LEFT EAR", "RIGHT EAR"], ((0, 1),)),
        (["left brow right corner", "right brow left corner"], ((0, 1),)),
        (["cleft", "bright spot", "chin"], ()),
        (["righteye", "lefteye"], ((0, 1),)),
    ],
)
def test_flip_pairs_from_names(names, pairs):
    assert infer_flip_pairs(names) == pairs


def test_flip_pairs_refuse_what_has_no_counterpart():
    with pytest.raises(ValueError, match="'left_ear' has no 'right_ear'"):
        infer_flip_pairs(["left_ear", "nose"])
    with pytest.raises(ValueError, match="must differ"):
        infer_flip_pairs(["left_ear", "left_ear", "right_ear"])


def test_98_to_68_is_the_published_table():
    points = np.stack([np.arange(98.0), -np.arange(98.0)], axis=-1)
    # fmt: off
    published = [
        0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32,
        33, 34, 35, 36, 37, 42, 43, 44, 45, 46, 51, 52, 53, 54, 55, 56, 57, 58, 59,
        60, 61, 63, 64, 65, 67, 68, 69, 71, 72, 73, 75,
        76, 77, 78, 79, 80, 81, 82, 83, 84, 85, 86, 87, 88, 89, 90, 91, 92, 93, 94, 95,
    ]
    # fmt: on
    converted = convert_landmarks(points, "wflw", "300w")
    assert converted[:, 0].tolist() == published
    assert converted[:, 1].tolist() == [-i for i in published]


def test_conversion_keeps_names_and_parts():
    wflw, ibug = get_scheme("wflw"), get_scheme("300w")
    order = convert_landmarks(np.repeat(np.arange(98)[:, None], 2, 1), wflw, ibug)[:, 0]
    part_of = {point: part for part, points in wflw.parts.items() for point in points}
    for part, points in ibug.parts.items():
        assert {part_of[order[point]] for point in points} == {part}
    # mirroring before or after the conversion is the same
    assert [wflw.flip_index[point] for point in order] == [order[point] for point in ibug.flip_index]


@pytest.mark.parametrize("kind", [np.float32, torch.float64])
def test_68_to_5_by_hand(kind):
    points = np.zeros((2, 68, 2))
    points[:, 36:42] = [[0, 5], [1, 4], [3, 4], [4, 5], [3, 6], [1, 6]]  # mean (2, 5)
    points[:, 42:48] = [[10, 5], [11, 4], [13, 4], [14, 5], [13, 6], [11, 6]]  # mean (12, 5)
    points[:, 30], points[:, 48], points[:, 54] = (7, 9), (4, 13), (10, 14)
    points[1] *= 2
    points = torch.tensor(points, dtype=kind) if isinstance(kind, torch.dtype) else points.astype(kind)
    five = convert_landmarks(points, "300w", "mtfl")
    assert type(five) is type(points) and five.dtype == points.dtype
    assert five[0].tolist() == [[2, 5], [12, 5], [7, 9], [4, 13], [10, 14]]
    assert five[1].tolist() == [[4, 10], [24, 10], [14, 18], [8, 26], [20, 28]]


def test_98_to_5_goes_by_way_of_68_and_a_missing_point_stays_missing():
    points = torch.rand(3, 98, 2, generator=torch.Generator().manual_seed(0))
    points[0, 61] = float("nan")  # one of the six of the left eye
    points[1, 62] = float("nan")  # not among the 68
    five = convert_landmarks(points, "wflw", "mtfl")
    assert torch.isnan(five).any(-1).tolist() == [[True, False, False, False, False], [False] * 5, [False] * 5]
    expected = points[:, [68, 69, 71, 72, 73, 75]].sum(1) / 6
    torch.testing.assert_close(five[:, 1], expected)


def test_conversions_that_do_not_exist():
    with pytest.raises(ValueError, match="No conversion from 300w to wflw"):
        convert_landmarks(np.zeros((68, 2)), "300w", "wflw")
    with pytest.raises(ValueError, match=r"shape \(..., 98, 2\), not \(68, 2\)"):
        convert_landmarks(np.zeros((68, 2)), "wflw", "300w")


def test_a_scheme_is_converted_by_the_names_of_its_points_and_not_by_its_own():
    points = np.random.default_rng(0).random((98, 2))
    mine = LandmarkScheme("mine", 98, get_scheme("wflw").point_names)
    assert [scheme.name for scheme in conversions_of(mine)] == ["300w", "mtfl"] and known_name(mine) == "wflw"
    assert (convert_landmarks(points, mine, "300w") == convert_landmarks(points, "wflw", "300w")).all()
    assert convert_landmarks(points, mine, "wflw") is points
    false = LandmarkScheme("wflw", 98)
    assert conversions_of(false) == sources_of(false) == () and known_name(false) is None
    with pytest.raises(ValueError, match="No conversion from wflw to 300w"):
        convert_landmarks(points, false, "300w")
    targets = {scheme.name for name in NAMES for scheme in conversions_of(get_scheme(name))}
    assert targets == set(TO_SCHEMES)
    assert {name: [scheme.name for scheme in sources_of(get_scheme(name))] for name in ("mtfl", "300w", "wflw")} == {
        "mtfl": ["300w", "wflw"],
        "300w": ["wflw"],
        "wflw": [],
    }


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared face data")
def test_mean_face_is_its_own_mirror_image():
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(SHARED / "data/300w/test-00000-of-00001.parquet", columns=["landmarks"])
    points = np.array(table["landmarks"].to_pylist())
    scheme = get_scheme("300w")
    points -= points.mean(1, keepdims=True)
    points /= np.linalg.norm(points[:, 36] - points[:, 45], axis=-1)[:, None, None]
    mean = points.mean(0)
    mirrored = mean[scheme.flip_index] * [-1, 1]
    # Lengths are in eye distances; neighbors on the jaw stand about 0.3 apart.
    assert np.linalg.norm(mirrored - mean, axis=-1).max() < 0.1
    # Left is the picture's left, and the chin is lowest.
    assert mean[36, 0] < mean[45, 0]
    assert mean[8, 1] == mean[:, 1].max()
