"""Annotating faces: the order of points, undo, and a file that loses nothing."""

import numpy as np
import pytest
from PIL import Image

from fabrec_hf.demo.annotation import AnnotatedFace, Project, parse_names
from fabrec_hf.demo.annotation_view import SIDE, crop_of, draw_annotation
from fabrec_hf.errors import DataError, SchemeError


NAMES = ["left_eye", "right_eye", "nose"]


@pytest.fixture
def project(tmp_path):
    project = Project(tmp_path)
    project.add_faces([AnnotatedFace(f"{i}.png", f"face {i}.png", (10.0, 20.0, 30.0, 40.0)) for i in range(4)])
    project.set_names(NAMES)
    project.choose([2, 0])
    return project


def test_points_follow_one_another_and_the_face_is_complete(project):
    assert project.row == 2 and project.current == 0
    project.put(1, 2)
    assert project.current == 1 and not project.face.complete
    project.select(2)
    project.put(5, 6)
    assert project.current == 1  # the one that was left out
    project.hide()
    assert project.face.complete and project.face.hidden == (False, True, False)
    np.testing.assert_array_equal(project.face.landmarks(), [[1, 2], [np.nan, np.nan], [5, 6]])
    assert project.annotated == [2]


def test_a_face_whose_points_are_all_invisible_teaches_nothing(project):
    for _ in NAMES:
        project.hide()
    assert not project.face.complete and project.annotated == []


def test_every_change_is_on_disk_at_once(project, tmp_path):
    project.put(1, 2)
    project.skip()
    project.put(7.5, 8.25)
    again = Project.load(tmp_path)
    for name in ("names", "faces", "order", "place", "current"):
        assert getattr(again, name) == getattr(project, name)
    assert again.faces[2].skipped and again.faces[0].points[0] == (7.5, 8.25)
    assert again.annotated == [0]


def test_undo_goes_back_through_everything(project):
    states = []
    for change in (
        lambda: project.put(1, 2),
        project.hide,
        project.skip,
        lambda: project.put(3, 4),
        lambda: project.accept(np.full((3, 2), 9.0)),
    ):
        states.append((list(project.faces), project.place, project.current))
        change()
    for state in reversed(states):
        assert project.undo()
        assert (project.faces, project.place, project.current) == state
    assert not project.undo()


def test_proposals_fill_only_what_is_open(project):
    project.put(1, 2)
    project.hide()
    project.accept(np.array([[9, 9], [9, 9], [7, 8]]))
    assert project.face.points == ((1.0, 2.0), None, (7.0, 8.0)) and project.face.complete
    project.go_to(1)
    project.accept(np.array([[9, 9], [np.nan, 9], [7, 8]]))
    assert project.face.points[1] is None and project.current == 1


def test_choosing_again_keeps_what_is_begun(project):
    project.put(1, 2)
    project.choose([3, 1])
    assert project.order == [2, 3, 1] and project.row == 2


def test_names_are_given_once(project, tmp_path):
    project.set_names(["chin"])
    assert project.faces[0].points == (None,)
    project.put(1, 1)
    with pytest.raises(SchemeError, match="start over"):
        project.set_names(NAMES)
    project.set_names(["chin"])
    assert Project.load(tmp_path).names == ("chin",)


def test_names_make_a_scheme(project):
    assert project.scheme.flip_pairs == ((0, 1),) and project.scheme.point_names == tuple(NAMES)
    assert parse_names(" a, b\n\nc ,", 3) == ["a", "b", "c"]
    for text, message in (
        ("a,a", "differ"),
        (" ,\n", "at least one"),
        ("a,b,c,d", "At most 3"),
        ("x" * 61, "At most"),
    ):
        with pytest.raises(SchemeError, match=message):
            parse_names(text, 3)


def test_what_comes_too_early_is_refused(tmp_path):
    empty = Project(tmp_path)
    with pytest.raises(DataError, match="Choose the faces"):
        empty.face  # noqa: B018
    empty.add_faces([AnnotatedFace("a", "a", (0, 0, 1, 1))])
    empty.choose([0])
    with pytest.raises(DataError, match="Name the points first"):
        empty.put(1, 1)


def test_a_click_is_where_it_was_made():
    """The crop of this box is the square (5, 13.6, 40) by hand: 20 % above, 12 % below, a side of 1.32 * 30."""
    view = crop_of((10.0, 20.0, 30.0, 30.0))
    side = 39.6
    left, top = 10 + 15 - side / 2 - side / 8, 20 - 6 + side / 2 - side / 2 - side / 8
    assert view.corner == pytest.approx((left, top)) and view.scale == pytest.approx(1.25 * side / SIDE)
    x, y = view.to_photograph(100, 200)
    np.testing.assert_allclose(view.from_photograph(np.array([[x, y]])), [[100.5, 200.5]])


def test_the_picture_shows_points_where_they_are():
    face = AnnotatedFace("a", "a", (10.0, 20.0, 30.0, 30.0), ((25.0, 30.0), None, None), (False, False, True))
    proposal = np.array([[0.0, 0.0], [20.0, 40.0], [30.0, 40.0]])
    drawn = draw_annotation(Image.new("RGB", (60, 70)), face, 1, proposal)
    assert drawn.size == (SIDE, SIDE)
    view = crop_of(face.box)
    for point, color in (((25.0, 30.0), (62, 245, 212)), ((20.0, 40.0), (20, 20, 30)), ((30.0, 40.0), (0, 0, 0))):
        x, y = view.from_photograph(np.array([point]))[0]
        assert drawn.getpixel((int(x), int(y))) == color
