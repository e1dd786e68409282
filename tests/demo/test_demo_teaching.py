"""From photographs in a session to a detector, its files and the Hub; with an autoencoder of a few kilobytes."""

import io
import json
import logging
import shutil
import threading
import time
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest

from support.faces import draw_face
from support.read_splits import load_split
from support.tiny_checkpoints import save_autoencoder, save_landmarks


datasets = pytest.importorskip("datasets")
pytest.importorskip("kmedoids")
pytest.importorskip("gradio")

from fabrec_hf.data.readers import open_source  # noqa: E402
from fabrec_hf.demo.annotation import AnnotatedFace  # noqa: E402
from fabrec_hf.demo.fit_queue import FitJob, FitQueue  # noqa: E402
from fabrec_hf.demo.models import ModelShelf  # noqa: E402
from fabrec_hf.demo.pages.teach import correct_doubtful  # noqa: E402
from fabrec_hf.demo.pages.training import describe_job, describe_seconds, draw_bar, push_detector  # noqa: E402
from fabrec_hf.demo.sessions import SessionStore  # noqa: E402
from fabrec_hf.demo.teaching import (  # noqa: E402
    Proposer,
    annotation_files,
    draw_results,
    find_session_faces,
    labeled_dataset,
    rank_faces,
    teach,
)
from fabrec_hf.demo.uploads import Limits, Uploads  # noqa: E402
from fabrec_hf.errors import DataError, HubError  # noqa: E402
from fabrec_hf.learning.fewshot import FitProgress  # noqa: E402
from fabrec_hf.learning.fit_result import FitResult  # noqa: E402


NAMES = ["left_eye", "right_eye", "nose", "left_mouth", "right_mouth"]
TRUTH = {f"face {seed}.png": draw_face(seed)[1] for seed in range(6)}


@pytest.fixture
def session(tmp_path):
    """Six drawn faces with their boxes, none annotated."""
    (tmp_path / "web").mkdir()
    uploads = Uploads(tmp_path / "web", Limits())
    session = SessionStore(tmp_path / "sessions", Limits()).open(None)
    paths, boxes = [], {}
    for seed in range(6):
        image, _, box = draw_face(seed)
        path = uploads.folder / f"face {seed}.png"
        image.save(path)
        paths.append(str(path))
        boxes[path.name] = tuple(box)
    kept, problems = session.add_photographs(paths, uploads)
    assert not problems
    session.project.add_faces([AnnotatedFace(file, name, boxes[name]) for file, name in kept])
    session.project.set_names(NAMES)
    session.project.choose([0, 1, 2])
    return session


def annotate(session, faces):
    for _ in range(faces):
        for x, y in TRUTH[session.project.face.name]:
            session.project.put(x, y)
        session.project.go_to_next_open()


@pytest.fixture
def autoencoder(tmp_path):
    return str(save_autoencoder(tmp_path / "autoencoder"))


def test_faces_are_found_and_a_photograph_without_one_is_taken_whole(session):
    class Finder:
        def detect(self, image):
            return [(1, 2, 30, 40), (5, 5, 20, 20)] if image.getpixel((0, 0)) == first else []

    photographs = [(face.file, face.name) for face in session.project.faces[:2]]
    first = session.photograph(session.project.faces[0]).getpixel((0, 0))
    assert first != session.photograph(session.project.faces[1]).getpixel((0, 0))
    seen = []
    faces = find_session_faces(session, photographs, Finder(), seen.append)
    assert [face.box for face in faces] == [(1, 2, 30, 40), (5, 5, 20, 20), (0, 0, 96, 96)] and seen == [1, 2]


def test_ranking_takes_faces_of_the_session(session, autoencoder):
    shelf = ModelShelf(autoencoder=autoencoder)
    rows = rank_faces(session, shelf, 4)
    assert len(set(rows)) == 4 and set(rows) <= set(range(6))
    assert sorted(rank_faces(session, shelf, 50)) == list(range(6))
    session.project.faces = []
    with pytest.raises(DataError, match="Add photographs first"):
        rank_faces(session, shelf, 1)


def test_annotations_become_rows(session):
    with pytest.raises(DataError, match="at least one face"):
        labeled_dataset(session.project, session.photographs)
    annotate(session, 1)
    session.project.put(*TRUTH["face 1.png"][0])
    rows = labeled_dataset(session.project, session.photographs)
    assert rows["name"] == ["face 0", "face 1"] and rows[0]["image"].size == (96, 96)
    np.testing.assert_allclose(rows[0]["landmarks"], TRUTH["face 0.png"], atol=1e-4)
    np.testing.assert_allclose(rows[0]["box"], draw_face(0)[2], atol=1e-4)


def test_archives_are_read_back_as_they_were_annotated(session, tmp_path):
    annotate(session, 2)
    session.project.undo()  # the last point of the second face
    files = annotation_files(session.project, session.photographs)
    for kind, name in (("coco", "annotations-coco.zip"), ("pts", "annotations-pts.zip")):
        folder = tmp_path / kind
        zipfile.ZipFile(io.BytesIO(files[name])).extractall(folder)
        rows = load_split(open_source(kind, str(folder), scheme=str(folder / "scheme.yaml")), "train")
        assert len(rows) == 2
        expected = session.project.faces[1].landmarks()
        assert np.isnan(expected).any(axis=1).tolist() == [False] * 4 + [True]
        np.testing.assert_allclose(rows[1]["landmarks"], expected, atol=1e-4)
        np.testing.assert_allclose(rows[0]["landmarks"], TRUTH["face 0.png"], atol=1e-4)


def test_teaching_keeps_a_detector_that_finds_the_points(session, autoencoder):
    annotate(session, 3)
    steps = []
    result = teach(session, autoencoder, 0.025, steps.append, lambda: False)
    assert [step.phase for step in steps].count("learning") == 15 and not result.stopped
    assert np.isfinite(result.held_out_errors).tolist() == [False, True, False]
    assert list(session.checkpoints()) == ["taught in this session"]
    finder = ModelShelf(autoencoder=autoencoder).finder(session.detector)
    assert finder.scheme.point_names == tuple(NAMES)
    drawn = draw_results(session, finder, 10)
    assert sorted(face.name for face in drawn) == ["face 3.png", "face 4.png", "face 5.png"]
    assert [face.score for face in drawn] == sorted(face.score for face in drawn)  # the doubtful ones first
    assert all(face.picture.size == (320, 320) and session.project.faces[face.row].name == face.name for face in drawn)
    assert sorted(path.name for path in session.folder.iterdir()) == ["detector", "photographs", "project.json"]
    teach(session, autoencoder, 0.005, steps.append, lambda: False)  # again, in its place
    results = json.loads((session.detector / "fit.json").read_text())
    low, high = results["held_out_interval"]
    assert low < results["held_out_error"] < high


def test_a_training_that_is_cancelled_keeps_what_it_learned(session, autoencoder):
    annotate(session, 1)
    steps = []
    result = teach(session, autoencoder, 1.0, steps.append, lambda: len(steps) >= 3)
    assert result.stopped and len(result.losses) == 3 and (session.detector / "config.json").is_file()


def test_a_training_of_what_was_removed_leaves_nothing(session, autoencoder):
    annotate(session, 1)

    def start_over() -> bool:
        session.clear()
        session.folder.mkdir()  # and its person has sent new photographs
        return True

    assert teach(session, autoencoder, 1.0, lambda _: None, start_over).stopped
    assert list(session.folder.iterdir()) == []


def test_proposals_begin_with_the_mean_shape_and_learn(session, autoencoder):
    """With one face annotated, its points move with the crop: the same fractions of another box."""
    proposer = Proposer(session, autoencoder)
    other = session.project.faces[5]
    image = session.photograph(other)
    assert proposer.propose(other, image) is None
    annotate(session, 1)
    annotated = session.project.faces[0]
    # Square boxes: the crop is a fixed enlargement of the box, so fractions of the box stay.
    scale = other.box[2] / annotated.box[2]
    center = np.array(annotated.box[:2]) + annotated.box[2] / 2 - 0.5
    expected = (TRUTH["face 0.png"] - center) * scale + np.array(other.box[:2]) + other.box[2] / 2 - 0.5
    np.testing.assert_allclose(proposer.propose(other, image), expected, atol=1e-6)
    result = proposer.learn(lambda progress: None, lambda: False)
    assert proposer.learned_from == 1 and len(result.losses) == 45
    first = proposer.propose(other, image)
    assert first.shape == (5, 2) and not np.allclose(first, expected)
    annotate(session, 1)
    proposer.learn(lambda progress: None, lambda: False)
    assert proposer.learned_from == 2 and not np.allclose(proposer.propose(other, image), first)
    proposer.learn(lambda progress: None, lambda: True)  # canceled: the model that proposes stays
    assert proposer.learned_from == 2


def outcome(stopped=False):
    unknown = np.array([np.nan])
    return FitResult(
        np.array([1.0]), unknown, np.zeros((1, 1, 2)), unknown[None], losses=[2.0], seconds=3.0, stopped=stopped
    )


def test_jobs_wait_their_turn_and_report():
    queue, release = FitQueue(2), threading.Event()

    def work(on_step, should_stop):
        on_step(FitProgress("learning", 1, 2, 5.0, 7.25))
        release.wait(20)
        return outcome(should_stop())

    first = queue.add(FitJob(work))
    while first.progress is None:
        time.sleep(0.01)
    assert describe_job(first, 0) == "Learning: step 1 of 2, loss 5.00, error on some faces 7.25 %."
    second, third = queue.add(FitJob(work, "a")), queue.add(FitJob(work, "b"))
    assert [queue.position(job) for job in (first, second, third)] == [0, 1, 2]
    assert describe_job(third, 2) == "Waiting: 2 trainings before yours."
    with pytest.raises(DataError, match="Too many"):
        queue.add(FitJob(work))
    newer = queue.add(FitJob(work, "a"))  # in the place of the one before
    assert second.state == "stopped" and queue.position(third) == 1
    third.cancel()
    first.cancel()
    release.set()
    assert first.wait(20) and third.wait(20) and newer.wait(20)
    assert (first.state, third.state, newer.state) == ("stopped", "stopped", "done")
    assert first.losses == [5.0] and third.result is None
    assert describe_job(third, 0) == "Canceled before it began."
    assert "Error on these faces: **1.00 %**" in describe_job(newer, 0) and "new faces" not in describe_job(newer, 0)


def test_a_job_says_how_long_its_stage_still_takes(monkeypatch):
    """At two seconds a step, 8 of 20 steps leave 24 s; the next stage is timed by itself."""
    now = [0.0]
    monkeypatch.setattr("fabrec_hf.demo.fit_queue.time.monotonic", lambda: now[0])
    job = FitJob(lambda *_: outcome())
    assert job.seconds_left is None and "0%" in draw_bar(job)
    for step in range(1, 9):
        job._report(FitProgress("learning", step, 20, 1.0))
        now[0] += 2.0
    now[0] -= 2.0
    assert job.seconds_left == pytest.approx(24.0)
    assert 'value="0.400"' in draw_bar(job) and "40%, about 25 s left of this phase" in draw_bar(job)
    job._report(FitProgress("estimating", 1, 10, 1.0))
    assert job.seconds_left is None
    assert [describe_seconds(seconds) for seconds in (1, 58, 62, 150.0)] == ["5 s", "60 s", "1 min", "2 min"]


def test_errors_come_with_their_uncertainty():
    """Of 1, 2 and 3 the mean is 2 and the standard error 1 / sqrt(3)."""
    job = FitJob(lambda *_: outcome(), state="done")
    errors = np.array([1.0, 2.0, 3.0])
    job.result = FitResult(errors, np.full(3, np.nan), np.zeros((3, 1, 2)), np.zeros((3, 1)), losses=[], seconds=1.0)
    assert "Error on these faces: **2.00 ± 0.58 %**" in describe_job(job, 0)
    assert "standard error of the mean" in describe_job(job, 0)


def test_a_detector_that_was_taught_proposes_from_then_on(session, autoencoder, tmp_path):
    """Its own landmarks of the face, in pixels of the photograph; and it is not replaced by one that learns along."""
    finder = ModelShelf(autoencoder=autoencoder).finder(save_landmarks(tmp_path / "taught"))
    proposer = Proposer(session, autoencoder)
    proposer.adopt(finder.model, 3)
    face = session.project.faces[5]
    expected = finder.find([session.photograph(face)], [[face.box]])[0][0]["keypoints"]
    np.testing.assert_allclose(proposer.propose(face, session.photograph(face)), expected, atol=0.05)
    assert proposer.adopted and proposer.learned_from == 3


def test_the_doubtful_faces_come_next_and_each_once(session, autoencoder, tmp_path):
    """Face 0 is annotated and face 1 skipped: three of the other four come next, the least sure one first."""
    annotate(session, 1)
    session.project.skip()
    checkpoint = save_landmarks(tmp_path / "tiny")
    shutil.copytree(checkpoint, session.detector, dirs_exist_ok=True)
    shelf = ModelShelf(str(checkpoint), str(autoencoder))
    correct_doubtful(SimpleNamespace(shelf=shelf), session)
    found = draw_results(session, shelf.finder(session.detector), 24)
    doubtful = [face.row for face in found if face.row != 1][:3]
    order = session.project.order
    assert order[:4] == [0, *doubtful] and sorted(order) == sorted({0, 1, 2, *doubtful})
    assert session.project.row == doubtful[0] and session.proposer.adopted


def test_jobs_that_fail_say_so_and_do_not_stop_the_queue(caplog):
    queue = FitQueue(4)

    def wrong(on_step, should_stop):
        raise DataError("Annotate more.")

    def broken(on_step, should_stop):
        raise RuntimeError("a secret of the server")

    with caplog.at_level(logging.ERROR):
        jobs = [queue.add(FitJob(work)) for work in (wrong, broken, lambda *_: outcome())]
        assert all(job.wait(20) for job in jobs)
    assert [job.state for job in jobs] == ["failed", "failed", "done"]
    assert describe_job(jobs[0], 0) == "The training failed: Annotate more."
    assert "secret" not in describe_job(jobs[1], 0)


def test_a_push_takes_the_visitors_token_and_keeps_it_nowhere(hub, session, caplog, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "writer")  # of the server itself
    with pytest.raises(HubError, match="Train a detector first"):
        push_detector(session, "faces/mine", "writer", True, hub.endpoint)
    save_landmarks(session.detector)
    for repository, token in (("faces/mine", ""), ("faces/mine", "  "), ("", "writer")):
        with pytest.raises(HubError, match="Give a repository"):
            push_detector(session, repository, token, True, hub.endpoint)
    with caplog.at_level(logging.DEBUG):
        with pytest.raises(HubError) as caught:
            push_detector(session, "faces/mine", "wrong-token-123", True, hub.endpoint)
        text = push_detector(session, "faces/from-the-demo", "writer", True, hub.endpoint)
    assert "wrong-token-123" not in str(caught.value) + caplog.text
    assert text.startswith("Pushed to faces/from-the-demo: ")
    assert "model.safetensors" in hub.api().list_repo_files("faces/from-the-demo")
    for path in session.folder.rglob("*"):
        assert path.is_dir() or b"wrong-token-123" not in path.read_bytes()
