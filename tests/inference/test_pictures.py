"""Many pictures at once: in order, by several threads, with what each of them gives alone."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fabrec_hf.errors import ImageError
from fabrec_hf.inference.landmark_finder import LandmarkFinder
from fabrec_hf.inference.pictures import landmark_pictures
from fabrec_hf.model.lone_threads import computing_threads
from support.landmark_checkpoints import save_landmark_model


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return save_landmark_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(params=[1, 2])
def threads(request):
    with computing_threads(request.param):
        yield request.param


@pytest.fixture
def pictures(tmp_path):
    """Eleven pictures of noise, of which the sixth is none and each has a size of its own."""
    paths = [tmp_path / f"{index:02}.png" for index in range(11)]
    for index, path in enumerate(paths):
        pixels = np.random.default_rng(index).integers(0, 256, (60, 80 + index, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    paths[5].write_text("no picture")
    return paths


def finder_of(checkpoint, detect=lambda rgb: []):
    return LandmarkFinder(str(checkpoint), "cpu", detector=detect)


def test_every_picture_gets_in_its_turn_what_it_gets_alone(checkpoint, pictures, threads):
    boxes, finder = [(20, 10, 30, 24)], finder_of(checkpoint)
    results = list(landmark_pictures(pictures, finder, boxes))
    assert [result.path for result in results] == pictures
    assert [type(result.error) for result in results] == [ImageError if at == 5 else type(None) for at in range(11)]
    for at, result in enumerate(results):
        if at != 5:
            ((alone,),) = finder.find([Image.open(pictures[at])], [boxes])
            (face,) = result.record["faces"]
            assert result.record["width"] == 80 + at
            np.testing.assert_allclose(face["keypoints"], alone["keypoints"], atol=0.0051)  # rounded
    assert torch.get_num_threads() == threads


def test_several_pictures_are_worked_on_at_a_time(checkpoint, pictures):
    meeting = threading.Barrier(2, timeout=30)

    def detect(rgb):
        meeting.wait()  # for a second picture, in another thread
        return []

    with computing_threads(2):
        results = list(landmark_pictures(pictures[:4], finder_of(checkpoint, detect)))
    assert [result.record["faces"] for result in results] == [[]] * 4


def test_a_loop_that_is_left_early_drops_the_rest(checkpoint, pictures):
    seen = []
    with computing_threads(2):
        many = [Path(pictures[0])] * 400
        results = landmark_pictures(many, finder_of(checkpoint, lambda rgb: seen.append(rgb.shape) or []))
        assert next(results).record["faces"] == []
        time.sleep(0.3)
        assert len(seen) <= 4 * 4  # of the group that is handed out and of three under way
        results.close()
        assert len(seen) < 50 and torch.get_num_threads() == 2


def test_a_gpu_gets_sixteen_pictures_at_a_time(checkpoint, pictures, monkeypatch):
    monkeypatch.setattr(LandmarkFinder, "on_cpu", False)
    finder, passes = finder_of(checkpoint), []
    monkeypatch.setattr(
        finder, "find", lambda images, boxes, score: passes.append(len(images)) or [[] for _ in images]
    )
    results = list(landmark_pictures(pictures * 10, finder))
    assert [result.path for result in results] == pictures * 10
    # Eleven pictures, of which one cannot be read, ten times over: six groups of 16 and one of 14.
    assert sum(passes) == 100 and len(passes) == 7 and max(passes) <= 16
