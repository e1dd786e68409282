"""YuNet in each of its runtimes: the same faces, and the one that is installed is taken."""

import importlib.util
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fabrec_hf.model import yunet
from fabrec_hf.model.yunet import YuNet


EXAMPLES = Path(__file__).parents[2] / "examples"
HAS_ONNX = all(importlib.util.find_spec(name) for name in ("onnx", "onnxruntime"))
needs_onnx = pytest.mark.skipif(not HAS_ONNX, reason="needs ONNX Runtime")


def photograph(name: str, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(Image.open(EXAMPLES / f"{name}.jpg").convert("RGB").resize(size))


@needs_onnx
@pytest.mark.parametrize("size", [(160, 160), (320, 333), (413, 377)])
def test_both_runtimes_give_the_same_rows(size):
    fast, plain = YuNet("onnxruntime"), YuNet("opencv")
    for name in ("astronaut", "grace_hopper"):
        for lowest in (0.2, 0.9):
            found, expected = (network(photograph(name, size), lowest, 5000) for network in (fast, plain))
            assert len(expected) >= (lowest == 0.2)
            np.testing.assert_allclose(found, expected, atol=1e-3)
    nothing = np.full((*size[::-1], 3), 120, dtype=np.uint8)
    assert fast(nothing, 0.5, 10).shape == plain(nothing, 0.5, 10).shape == (0, 15)


@needs_onnx
def test_the_eyes_lie_where_they_are():
    # The photograph is 512 x 512; its eyes were read off by eye.
    row = YuNet("onnxruntime")(photograph("astronaut", (512, 512)), 0.5, 5000)[0]
    eyes = row[4:8].reshape(2, 2)
    np.testing.assert_allclose(eyes, [[204, 101], [243, 102]], atol=8)
    assert row[-1] > 0.9


@pytest.mark.parametrize("runtime", [pytest.param("onnxruntime", marks=needs_onnx), "opencv"])
def test_threads_do_not_disturb_one_another(runtime):
    network = YuNet(runtime)
    pictures = [photograph("astronaut", (side, side)) for side in (160, 200, 240, 280)] * 3
    expected = [network(picture, 0.5, 100) for picture in pictures]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda picture: network(picture, 0.5, 100), pictures))
    for rows, others in zip(found, expected, strict=True):
        np.testing.assert_allclose(rows, others, atol=1e-3)


def test_opencv_takes_over_where_onnx_runtime_cannot_load_the_network(monkeypatch, caplog):
    def fail(weights):
        raise RuntimeError("libsomething.so is missing\nand more")

    monkeypatch.setattr(yunet, "_has_onnx_runtime", lambda: True)
    monkeypatch.setattr(yunet, "_onnx_session", fail)
    network = YuNet()
    assert network.runtime == "opencv" and len(network(photograph("astronaut", (320, 320)), 0.5, 100)) == 1
    (record,) = caplog.records
    assert "cannot load the face detector (libsomething.so is missing); OpenCV runs it" in record.getMessage()
    with pytest.raises(RuntimeError, match="libsomething"):
        YuNet("onnxruntime")


def test_without_onnx_runtime_opencv_is_taken(monkeypatch):
    assert YuNet().runtime == ("onnxruntime" if HAS_ONNX else "opencv")
    monkeypatch.setattr(yunet, "_has_onnx_runtime", lambda: False)
    assert YuNet().runtime == "opencv"
