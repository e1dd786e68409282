"""The GPU that a Space with ZeroGPU lends: a stand-in for the Hub's library runs the search in a fork, as it does."""

import multiprocessing
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


pytest.importorskip("gradio")
pytest.importorskip("kmedoids")

from fabrec_hf.demo.detection import find_faces  # noqa: E402
from fabrec_hf.demo.models import ModelShelf  # noqa: E402
from fabrec_hf.demo.uploads import Limits, Photograph  # noqa: E402
from fabrec_hf.demo.zero_gpu import borrows_gpu, face_search  # noqa: E402
from fabrec_hf.errors import ImageError  # noqa: E402


ROOT = Path(__file__).parents[2]


def fork_each_call(function, duration=None):
    """Call in a forked process: arguments and results are pickled, and of an error only its class comes back."""
    context = multiprocessing.get_context("fork")

    def call(*args):
        ours, theirs = context.Pipe()

        def work():
            try:
                theirs.send(function(*ours_args))
            except Exception as error:
                theirs.send(RuntimeError(type(error).__name__))

        ours_args = args
        process = context.Process(target=work, daemon=True)
        process.start()
        try:
            assert ours.poll(300), "the forked process hangs"
            result = ours.recv()
        finally:
            process.kill()
            process.join()
        if isinstance(result, RuntimeError):
            raise result
        return result

    fork_each_call.decorated.append((function, duration))
    return call


fork_each_call.decorated = []


@pytest.fixture
def zero_gpu(monkeypatch):
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    fork_each_call.decorated.clear()
    monkeypatch.setitem(sys.modules, "spaces", types.SimpleNamespace(GPU=fork_each_call))


def photograph(image):
    return Photograph("me.jpg", image, image.size)


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_faces_are_found_in_the_process_that_has_the_gpu(zero_gpu):
    shelf, limits = ModelShelf(device="cpu"), Limits()
    picture = photograph(Image.open(ROOT / "space/examples/astronaut.jpg").convert("RGB"))
    here = find_faces(picture, shelf.finder(), shelf, limits)  # so that threads run that a fork does not inherit
    search = face_search(shelf, limits)
    ((_, duration),) = fork_each_call.decorated
    assert borrows_gpu() and 0 < duration <= 60
    there = search(picture)
    assert len(there.faces) == len(here.faces) == 1
    for name in ("keypoints", "scores", "box"):
        ours, theirs = (np.asarray(getattr(found.faces[0], name)) for found in (here, there))
        np.testing.assert_allclose(ours, theirs, atol=0.02)


def test_what_the_visitor_can_put_right_comes_back_in_words(zero_gpu, monkeypatch):
    def refuse(*_):
        raise ImageError("me.jpg: say what to do.")

    monkeypatch.setattr("fabrec_hf.demo.detection.find_faces", refuse)
    shelf = types.SimpleNamespace(landmarks_name="3fabrec-300w", autoencoder_name="3fabrec-autoencoder")
    with pytest.raises(ImageError, match=r"^me\.jpg: say what to do\.$"):
        face_search(shelf, Limits())(photograph(Image.new("RGB", (20, 20))))


def test_elsewhere_nothing_is_lent(monkeypatch):
    monkeypatch.delenv("SPACES_ZERO_GPU", raising=False)
    monkeypatch.setitem(sys.modules, "spaces", None)
    assert not borrows_gpu()
    seen = []
    monkeypatch.setattr("fabrec_hf.demo.detection.find_faces", lambda *given: seen.append(given) or "found")
    shelf = types.SimpleNamespace(finder=lambda: "finder")
    assert face_search(shelf, "limits")("photograph") == "found"
    assert seen == [("photograph", "finder", shelf, "limits")]
