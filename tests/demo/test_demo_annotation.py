"""Annotating faces: the order of points, undo, and a file that loses nothing."""

import numpy as np
import pytest
from PIL import Image

from fabrec_hf.demo.annotation import AnnotatedFace, Project, parse_names
from fabrec_hf.demo.annotation_view import SIDE, crop_of, cut_face
from fabrec_hf.demo.face_board import apply_action, board_value, from_board
from fabrec_hf.demo.sessions import SessionStore
from fabrec_hf.demo.uploads import Limits, Uploads
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


def test_a_face_is_annotated_once_however_often_it_is_chosen(project):
    project.put(1, 2)  # in face 2
    project.choose([3, 3, *project.order, 1])
    assert project.order == [2, 3, 0, 1]


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


def test_the_cut_shows_the_face_where_points_are_said_to_be():
    """A red block of 6 x 6 px of the photograph, where its middle is said to be, at two sizes of the cut."""
    photograph = Image.new("RGB", (60, 70))
    photograph.paste((255, 0, 0), (22, 27, 28, 33))
    view = crop_of((10.0, 20.0, 30.0, 30.0))
    place = view.from_photograph(np.array([[24.5, 29.5]]))[0]
    for side in (SIDE, SIDE // 4):
        cut = cut_face(photograph, (10.0, 20.0, 30.0, 30.0), side)
        assert cut.size == (side, side)
        red = np.argwhere(np.asarray(cut)[..., 0] > 127)[:, ::-1]
        np.testing.assert_allclose((red.min(0) + red.max(0) + 1) / 2, place * side / SIDE, atol=1.0)


@pytest.fixture
def on_board(tmp_path):
    """A session with two faces of one photograph, both chosen, and the uploads of its server."""
    (tmp_path / "web").mkdir()
    uploads = Uploads(tmp_path / "web", Limits())
    session = SessionStore(tmp_path / "sessions", Limits()).open(None)
    path = uploads.folder / "two.png"
    Image.new("RGB", (90, 70), (9, 200, 9)).save(path)
    ((file, name),), _ = session.add_photographs([str(path)], uploads)
    session.project.add_faces([AnnotatedFace(file, name, (x, 20.0, 30.0, 30.0)) for x in (10.0, 50.0)])
    session.project.set_names(NAMES)
    session.project.choose([1, 0])
    return session, uploads


def test_the_board_shows_the_session(on_board):
    session, uploads = on_board
    session.project.put(*crop_of((50.0, 20.0, 30.0, 30.0)).to_photograph(SIDE / 4 - 0.5, SIDE / 2 - 0.5))
    session.project.hide()
    proposal = np.array([[np.nan, np.nan], [1.0, 1.0], [65.0, 34.0]])
    value = board_value(session, uploads, proposal, number=7)
    assert value["names"] == NAMES and value["current"] == 2 and value["number"] == 7
    assert value["points"][0] == pytest.approx([0.25, 0.5]) and value["points"][1:] == [None, None]
    assert value["hidden"] == [False, True, False] and value["proposal"][0] is None
    assert from_board(*value["proposal"][2], (50.0, 20.0, 30.0, 30.0)) == pytest.approx((65.0, 34.0))
    assert [face["state"] for face in value["faces"]] == ["begun", "open"]
    files = [uploads.folder / value["picture"].partition("file=")[2]]
    files += [uploads.folder / face["picture"].partition("file=")[2] for face in value["faces"]]
    assert [Image.open(file).size for file in files] == [(SIDE, SIDE), (112, 112), (112, 112)]
    assert board_value(session, uploads, None)["picture"] == value["picture"]  # it is cut once
    session.clear()
    assert not any(file.exists() for file in files)


def test_what_is_done_on_the_board_is_done_to_the_session(on_board):
    session, _ = on_board
    accepted = []

    def act(verb, place=0, point=0, **more):
        apply_action(session, {"verb": verb, "place": place, "point": point, "number": 5, **more}, accepted.append)

    project = session.project
    act("put", point=1, x=0.25, y=0.5, advance=True)
    expected = crop_of((50.0, 20.0, 30.0, 30.0)).to_photograph(SIDE / 4 - 0.5, SIDE / 2 - 0.5)
    assert project.faces[1].points[1] == pytest.approx(expected) and project.current == 2 and session.answered == 5
    act("put", point=0, x=0.5, y=0.5, advance=False)
    assert project.current == 0 and project.faces[1].points[0] is not None
    act("hide", point=2)
    assert project.faces[1].hidden == (False, False, True) and project.faces[1].complete
    act("undo")
    assert project.faces[1].hidden == (False, False, False)
    act("select", point=2)
    assert project.current == 2
    act("next")
    assert project.row == 0
    act("previous", place=1)
    assert project.row == 1
    act("go", place=1)
    act("put", place=0, point=0, x=0.1, y=0.1)  # of a face that the server had left meanwhile
    assert project.row == 1 and project.can_undo
    act("accept")
    assert accepted == [session]


@pytest.mark.parametrize(
    "action",
    [
        None,
        {},
        {"verb": "put", "place": "x", "number": 1},
        {"verb": "put", "place": 9, "number": 1},
        {"verb": "put", "place": 0, "point": 3, "x": 0, "y": 0, "number": 1},
        {"verb": "put", "place": 0, "point": 0, "x": float("nan"), "y": 0, "number": 1},
        {"verb": "put", "place": 0, "point": 0, "x": 1e9, "y": 0, "number": 1},
        {"verb": "clear", "place": 0, "number": 1},
    ],
)
def test_what_is_no_action_is_refused(on_board, action):
    session, _ = on_board
    with pytest.raises(DataError):
        apply_action(session, action, lambda _: None)
    assert not any(face.touched for face in session.project.faces)
