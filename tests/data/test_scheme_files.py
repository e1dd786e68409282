"""Landmark schemes from files, made up from data, and matched with data."""

import json
import logging

import pytest
import yaml

from fabrec_hf.data.scheme_files import infer_scheme, load_scheme, match_scheme, write_scheme
from fabrec_hf.errors import SchemeError
from fabrec_hf.model.known_schemes import LandmarkScheme, Normalizer, get_scheme


CAT = """
name: cat
point_names: [left_eye, right_eye, nose, left_ear, right_ear]
normalizer: {kind: points, points: [[left_eye, left_ear], right_eye]}
parts: {eyes: [left_eye, right_eye], tip: [2]}
edges: [[left_eye, nose], [nose, 1]]
"""


def test_names_stand_for_points_in_a_file(tmp_path):
    expected = LandmarkScheme(
        name="cat",
        num_landmarks=5,
        point_names=("left_eye", "right_eye", "nose", "left_ear", "right_ear"),
        flip_pairs=((0, 1), (3, 4)),
        normalizer=Normalizer("points", ((0, 3), (1,))),
        parts={"eyes": (0, 1), "tip": (2,)},
        edges=((0, 2), (2, 1)),
    )
    (tmp_path / "cat.yaml").write_text(CAT)
    (tmp_path / "cat.YML").write_text(CAT)
    (tmp_path / "cat.json").write_text("\ufeff" + json.dumps(yaml.safe_load(CAT)), encoding="utf-8")
    for name in ("cat.yaml", "cat.YML", "cat.json"):
        assert load_scheme(tmp_path / name) == load_scheme(str(tmp_path / name)) == expected


def test_flip_pairs_are_inferred_only_where_they_are_absent(tmp_path):
    path = tmp_path / "scheme.yaml"
    path.write_text("name: a\npoint_names: [left_eye, right_eye, nose]\nflip_pairs: []\n")
    assert load_scheme(path).flip_pairs == ()
    path.write_text("name: a\npoint_names: [one, two, nose]\nflip_pairs: [[two, one]]\n")
    assert load_scheme(path).flip_pairs == ((1, 0),)
    path.write_text("name: a\nnum_landmarks: 3\nflip_pairs: [[2, 0]]\nedges:\n")
    assert load_scheme(path) == LandmarkScheme("a", 3, flip_pairs=((2, 0),))


def test_what_is_no_file_is_returned_or_looked_up(tmp_path):
    scheme = LandmarkScheme("mine", 2)
    assert load_scheme(None) is None and load_scheme(scheme) is scheme
    for name in ("300w", "wflw", "aflw", "mtfl"):
        assert load_scheme(name) == get_scheme(name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a", "needs num_landmarks"),
        ("num_landmarks: 2", "needs name"),
        ("point_names: [a", "line 1"),
        ("- a\n- b", "is a mapping with name"),
        ("", "is a mapping with name"),
        ("name: a\nnum_landmarks: 2\ncolor: red", "does not know color"),
        ("name: a\nnum_landmarks: 3\npoint_names: [a, b]", "2 point names were given for 3"),
        ("name: a\npoint_names: [a, a]", "'a' stands twice"),
        ("name: a\npoint_names: [a, 7]", "must be a string"),
        ("name: a\npoint_names: a", "must be a list|needs num_landmarks"),
        ("name: a\npoint_names: [a, b]\nedges: [[a, c]]", "edges names point 'c', but there are a, b"),
        ("name: a\nnum_landmarks: 2\nedges: [[a, 1]]", "edges names point 'a', but point_names gives none"),
        ("name: a\nnum_landmarks: 2\nedges: [[0, 2]]", "edges names point 2, outside 0 to 1"),
        ("name: a\npoint_names: [a, b]\nparts: {eyes: [c]}", "part 'eyes' names point 'c'"),
        ("name: a\npoint_names: [a, b]\nflip_pairs: [[a, a]]", "to itself"),
        ("name: a\npoint_names: [left_eye, nose]", "no 'right_eye' to mirror to"),
        ("name: a\nnum_landmarks: 2\nnormalizer: {kind: points, points: [0]}", "two different ends"),
        ("name: a\nnum_landmarks: 2\nnormalizer: {kind: points, points: [x, y]}", "normalizer names point 'x'"),
        ("name: a\nnum_landmarks: 2\nnormalizer: side", "must be a mapping"),
        ("name: a\nnum_landmarks: two", "must be an integer"),
    ],
)
def test_a_mistake_in_a_file_is_one_line_with_its_name(tmp_path, text, message):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(SchemeError, match=message) as error:
        load_scheme(tmp_path / "mine.yaml")
    assert "mine.yaml" in str(error.value) and "\n" not in str(error.value)


def test_other_mistakes(tmp_path):
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "bytes.yaml").write_bytes(b"name: \xff\xfe")
    (tmp_path / "folder.yaml").mkdir()
    for spec, message in [
        ("nonsense", "'nonsense'; give 300w, wflw, aflw, mtfl, mesh, or a scheme file"),
        ("scheme.txt", "ends in .yaml, .yml or .json"),
        (tmp_path / "missing.yaml", "missing.yaml cannot be read: No such file"),
        (tmp_path / "folder.yaml", "folder.yaml cannot be read"),
        (tmp_path / "broken.json", "broken.json: "),
        (tmp_path / "bytes.yaml", "bytes.yaml: "),
    ]:
        with pytest.raises(SchemeError, match=message) as error:
            load_scheme(spec)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["300w", "wflw", "aflw", "mtfl"])
@pytest.mark.parametrize("suffix", [".yaml", ".json"])
def test_written_schemes_read_back_as_they_are(tmp_path, name, suffix):
    scheme = get_scheme(name)
    write_scheme(scheme, tmp_path / f"scheme{suffix}")
    assert load_scheme(tmp_path / f"scheme{suffix}") == scheme
    assert [path.name for path in tmp_path.iterdir()] == [f"scheme{suffix}"]


def test_written_schemes_keep_what_would_be_inferred_otherwise(tmp_path):
    scheme = LandmarkScheme("no", 2, ("left_ohr_ü", "right_ohr_ü"))  # "no" is false in YAML unless it is quoted
    write_scheme(scheme, tmp_path / "scheme.yml")
    assert load_scheme(tmp_path / "scheme.yml") == scheme
    with pytest.raises(SchemeError, match="ends in .yaml, .yml or .json"):
        write_scheme(scheme, tmp_path / "scheme.txt")


def test_schemes_are_made_of_what_the_data_says(caplog):
    assert infer_scheme("custom", num_landmarks=68) == LandmarkScheme("custom", 68)  # not taken for 300w
    named = infer_scheme("custom", ["left_eye", "nose", "right_eye"], edges=((0, 1),))
    assert named == LandmarkScheme(
        "custom", 3, ("left_eye", "nose", "right_eye"), flip_pairs=((0, 2),), edges=((0, 1),)
    )
    assert named.normalizer == Normalizer("box")
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        lame = infer_scheme("custom", ["left_eye", "nose"])
    assert lame == LandmarkScheme("custom", 2, ("left_eye", "nose"))
    assert len(caplog.records) == 1 and "right_eye" in caplog.text
    with pytest.raises(SchemeError, match="stands twice"):
        infer_scheme("custom", ["nose", "nose"])
    with pytest.raises(SchemeError, match="outside 0 to 1"):
        infer_scheme("custom", num_landmarks=2, edges=((0, 5),))


def test_points_with_the_names_of_the_scheme_are_put_into_its_order():
    scheme = LandmarkScheme("mine", 3, ("a", "b", "c"))
    assert match_scheme(scheme, "f", ["c", "a", "b"]) == (scheme, [1, 2, 0])
    assert match_scheme(scheme, "f", ["x", "y", "z"]) == (scheme, [0, 1, 2])  # by their order
    assert match_scheme(scheme, "f", ["a", "y", "z"]) == (scheme, [0, 1, 2])
    assert match_scheme(scheme, "f", num_landmarks=3) == (scheme, [0, 1, 2])
    assert match_scheme(None, "f", ["x", "y"]) == (LandmarkScheme("custom", 2, ("x", "y")), [0, 1])
    for names, message in [
        (["b", "a", "z"], "f has the points of the scheme mine in another order .* 'z'"),
        (["a", "b"], "f has 2 points a face, but the scheme mine 3"),
        (["a", "a", "b"], "f has two points of the name 'a'"),
    ]:
        with pytest.raises(SchemeError, match=message):
            match_scheme(scheme, "f", names)
    with pytest.raises(SchemeError, match="^f: "):
        match_scheme(None, "f", num_landmarks=2, edges=((0, 5),))


def test_training_takes_scheme_files(tmp_path, monkeypatch):
    find_scheme = pytest.importorskip("train_landmarks").find_scheme
    (tmp_path / "cat.yaml").write_text(CAT)
    assert find_scheme(str(tmp_path / "cat.yaml"), None, 5).flip_pairs == ((0, 1), (3, 4))
    assert find_scheme(None, None, 68) == find_scheme("300w", None, 68) == get_scheme("300w")
    assert find_scheme(None, None, 7) == LandmarkScheme("custom", 7)
    with pytest.raises(SchemeError, match="has 5 points but the data"):
        find_scheme(str(tmp_path / "cat.yaml"), None, 68)
