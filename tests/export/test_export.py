"""Exports: each is loaded in its own runtime and gives the model's points, for every batch size, from any thread."""

import json
import runpy
import shutil
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fabrec_hf.checkpoints.loading import load_landmark_model
from fabrec_hf.checkpoints.weight_files import is_export
from fabrec_hf.cli import main
from fabrec_hf.errors import CheckpointError, FabRecError
from fabrec_hf.export import runtimes
from fabrec_hf.export.runtime_files import FORMATS, export_model, need_package
from fabrec_hf.export.runtimes import load_exported
from fabrec_hf.inference.landmark_finder import LandmarkFinder
from support.commands import fails_with
from support.landmark_checkpoints import save_landmark_model
from support.tiny_models import random_statistics
from support.warm_processes import run_code


EXAMPLES = Path(__file__).parents[2] / "examples"

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")


@pytest.fixture(scope="module")
def model_and_processor(tmp_path_factory):
    folder = save_landmark_model(tmp_path_factory.mktemp("model"), flip_average=True)
    model, processor = load_landmark_model(folder)
    random_statistics(model).save_pretrained(folder)
    return model, processor, folder


@pytest.fixture(scope="module")
def exported(model_and_processor, tmp_path_factory):
    """A function that gives the folder of a format, exported on the command line once."""
    folders = {}

    def export(format):
        if format not in folders:
            folder = tmp_path_factory.mktemp("exported") / format
            words = ["export", "--model", str(model_and_processor[2]), "--format", format, "--output", str(folder)]
            assert main(words) == 0
            folders[format] = folder
        return folders[format]

    return export


def crops(count, size=32, seed=0):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed)) - 0.45


@pytest.mark.parametrize("format", FORMATS)
def test_each_runtime_gives_the_models_points(exported, model_and_processor, format):
    model, processor, _ = model_and_processor
    folder = exported(format)
    names = {*FORMATS[format], "config.json", "preprocessor_config.json"}
    assert {path.name for path in folder.iterdir()} == names
    detector, its_processor = load_exported(folder, threads=1)
    assert its_processor.to_dict() == processor.to_dict()
    for count in (1, 3, 8):
        with torch.no_grad():
            expected = model(crops(count, seed=count))
        found = detector(crops(count, seed=count))
        assert found.landmarks.shape == (count, 5, 2) and found.scores.shape == (count, 5)
        assert (found.landmarks - expected.landmarks).abs().max() * 32 < 1e-3
        torch.testing.assert_close(found.scores, expected.scores, atol=1e-5, rtol=0)


def test_openvino_is_told_the_precision(exported, monkeypatch):
    from types import SimpleNamespace

    seen = []
    core = SimpleNamespace(compile_model=lambda path, device, settings: seen.append(settings))
    monkeypatch.setattr("fabrec_hf.export.runtimes._openvino_core", lambda: core)
    for dtype in (torch.float32, torch.bfloat16):
        load_exported(exported("openvino"), dtype=dtype)
    assert [settings["INFERENCE_PRECISION_HINT"] for settings in seen] == ["f32", "bf16"]


SIGNALS = """
import faulthandler, signal, sys
faulthandler.enable()  # gives the process a stack for signals, which OpenVINO then replaces
from fabrec_hf.export.runtimes import load_exported
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
first, second = (load_exported(sys.argv[1], threads=1)[0] for _ in range(2))
del first
del second
signal.raise_signal(signal.SIGUSR1)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="there are no such signals")
def test_signals_do_not_end_a_process_that_let_go_of_openvino_detectors(exported):
    done = run_code(SIGNALS, exported("openvino"))
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


def test_sixteen_bits_are_openvinos_alone(exported):
    detector, _ = load_exported(exported("openvino"), threads=1)
    rounded, _ = load_exported(exported("openvino"), threads=1, dtype=torch.bfloat16)
    exact, found = detector(crops(4)), rounded(crops(4))
    # bfloat16 has 8 bits of precision; a random model's flat heatmaps move some points, but not the lot of them.
    torch.testing.assert_close(found.scores, exact.scores, atol=2e-2, rtol=2e-2)
    assert (found.landmarks - exact.landmarks).abs().median() * 32 < 0.5
    for format, dtype in (("onnx", torch.bfloat16), ("torch", torch.bfloat16), ("openvino", torch.float16)):
        with pytest.raises(ValueError, match="only OpenVINO's do, in torch.bfloat16"):
            load_exported(exported(format), dtype=dtype)


@pytest.mark.parametrize("format", FORMATS)
def test_24_threads_get_what_one_gets(exported, format):
    detector, _ = load_exported(exported(format), threads=1)
    batches = [crops(1 + index % 3, seed=index) for index in range(48)]
    alone = [detector(batch).landmarks for batch in batches]
    with ThreadPoolExecutor(24) as pool:
        together = list(pool.map(lambda batch: detector(batch).landmarks, batches))
    for first, second in zip(alone, together, strict=True):
        torch.testing.assert_close(second, first, atol=1e-6, rtol=0)


def test_an_onnx_file_says_what_a_program_needs_to_know(exported):
    graph = onnx.load(exported("onnx") / "model.onnx")
    about = {entry.key: json.loads(entry.value) for entry in graph.metadata_props}
    assert about["image_size"] == 32 and about["scheme"] == "mtfl" and len(about["point_names"]) == 5
    assert about["image_mean"] == [0.518, 0.418, 0.361] and about["image_std"] == [1.0, 1.0, 1.0]
    assert (about["extend_top"], about["extend_bottom"]) == (0.2, 0.12)
    assert [entry.name for entry in graph.graph.input] == ["pixel_values"]
    assert [entry.name for entry in graph.graph.output] == ["landmarks", "scores"]
    operators = {node.op_type for node in graph.graph.node}
    assert not operators & {"BatchNormalization", "ConvTranspose"}


def test_the_example_needs_nothing_but_the_file(exported, model_and_processor, monkeypatch, capsys):
    picture, box = EXAMPLES / "astronaut.jpg", [181, 89, 87, 89]
    file = exported("onnx") / "model.onnx"
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["", str(file), str(picture), ",".join(map(str, box))])
    runpy.run_path(str(EXAMPLES / "onnx_runtime.py"))
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    model, processor, _ = model_and_processor
    inputs = processor(str(picture), boxes=[box])
    with torch.no_grad():
        points = processor.landmarks_from_crop(model(inputs["pixel_values"]).landmarks, inputs["crop_boxes"])
    assert [line[0] for line in lines] == model.config.landmark_scheme["point_names"]
    found = np.array([[float(number) for number in line[1:3]] for line in lines])
    np.testing.assert_allclose(found, points[0].numpy(), atol=0.5)  # Pillow rounds the crop to whole gray levels


@pytest.mark.parametrize("format", FORMATS)
def test_an_export_detects_in_its_own_runtime(exported, model_and_processor, tmp_path, capsys, format):
    photos = []
    for seed in range(3):
        photos.append(str(tmp_path / f"{seed}.png"))
        pixels = np.random.default_rng(seed).integers(0, 256, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(photos[-1])
    found, names = {}, (str(model_and_processor[2]), str(exported(format)))
    capsys.readouterr()
    for name in names:
        assert main(["detect", photos[0], "--model", name, "--boxes", "20,10,30,24", "--json"]) == 0
        (found[name],) = json.loads(capsys.readouterr().out)
        assert found[name].pop("model") == name
    first, second = (record.pop("faces")[0] for record in found.values())
    records = list(found.values())
    assert records[0] == records[1] and records[0]["scheme"] == "mtfl"
    np.testing.assert_allclose(second["keypoints"], first["keypoints"], atol=0.011)  # rounded to hundredths
    sources = load_exported(exported(format)), str(model_and_processor[2])
    finders = [LandmarkFinder(source, detector=lambda rgb: []) for source in sources]
    images = [Image.open(photo) for photo in photos]
    faces = [finder.find(images, [[(20, 10, 30, 24)]] * 3) for finder in finders]
    for (one,), (other,) in zip(*faces, strict=True):
        np.testing.assert_allclose(one["keypoints"], other["keypoints"], atol=1e-3)


@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_int8_is_quantized_and_close(model_and_processor, labeled, tmp_path, capsys, format):
    pytest.importorskip("nncf")
    words = ["export", "--model", str(model_and_processor[2]), "--format", format, "--output", str(tmp_path / "out")]
    words += ["--int8", "--data", str(labeled), "--int8-faces", "8", "--max-growth", "1000", "--json"]
    assert main(words) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["faces"] == 6 and report["nme"] > 0
    assert report["growth_percent"] == pytest.approx(100 * (report["nme_int8"] / report["nme"] - 1))
    detector, _ = load_exported(tmp_path / "out")
    model = model_and_processor[0]
    with torch.no_grad():
        expected = model(crops(4)).scores
    difference = (detector(crops(4)).scores - expected).abs()
    assert 0 < difference.max() < 0.1  # 8 bits show, and no more than that
    if format == "onnx":
        graph = onnx.load(tmp_path / "out" / "model.onnx").graph
        quantized = [node for node in graph.node if node.op_type == "DequantizeLinear"]
        assert quantized and not any(node.name.startswith("decode/") for node in quantized)


def test_int8_that_costs_too_much_is_not_written(model_and_processor, labeled, tmp_path, capsys, monkeypatch):
    pytest.importorskip("nncf")
    errors = iter([5.0, 5.06])
    monkeypatch.setattr("fabrec_hf.metrics.normalized_mean_error", lambda *_: np.array([next(errors)]))
    words = ["export", "--model", model_and_processor[2], "--output", tmp_path / "out", "--int8", "--data", labeled]
    assert main([str(word) for word in [*words, "--int8-faces", "4"]]) == 2
    assert "raises the error from 5.000 to 5.060 % (+1.20 % of itself)" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_mistakes_take_one_line_and_write_nothing(model_and_processor, labeled, tmp_path, capsys):
    folder, output = model_and_processor[2], tmp_path / "out"
    start = ["export", "--model", folder, "--output", output]
    fails_with(capsys, [*start, "--int8"], "--int8 and --data go together")
    fails_with(capsys, [*start, "--data", labeled], "--int8 and --data go together")
    fails_with(capsys, [*start, "--format", "torch", "--int8", "--data", labeled], "INT8 is for the formats")
    fails_with(capsys, ["export", "--model", tmp_path / "none", "--output", output], "No checkpoint")
    (tmp_path / "file").write_text("")
    fails_with(capsys, ["export", "--model", folder, "--output", tmp_path / "file"], "is not a folder")
    assert not output.exists()
    with pytest.raises(ValueError, match="onnx, openvino, torch"):
        export_model(*model_and_processor[:2], output, "coreml")


def test_an_export_has_a_name_a_fingerprint_and_no_device(exported):
    detector, processor = load_exported(exported("onnx"), threads=1)
    finder = LandmarkFinder((detector, processor), device="cpu")
    assert finder.name == str(exported("onnx")) and finder.on_cpu and finder.num_landmarks == 5
    others = [LandmarkFinder(load_exported(exported(format))) for format in ("onnx", "openvino")]
    assert [other.fingerprint() == finder.fingerprint() for other in others] == [True, False]
    with pytest.raises(FabRecError, match="leave the device out"):
        LandmarkFinder((detector, processor), device="cuda")
    with pytest.raises(CheckpointError, match="is an export"):
        load_landmark_model(exported("onnx"))


def test_a_folder_is_for_one_format_and_for_no_checkpoint(exported, model_and_processor, tmp_path, capsys):
    folder, words = model_and_processor[2], ["export", "--model", str(model_and_processor[2]), "--output"]
    fails_with(capsys, [*words, str(exported("onnx")), "--format", "openvino"], "holds an export for onnx")
    fails_with(capsys, [*words, str(folder)], "holds a checkpoint")
    assert not (folder / "model.onnx").exists() and is_export(exported("onnx")) and not is_export(folder)
    # A repository may hold both, and is a checkpoint then.
    both = shutil.copytree(folder, tmp_path / "both")
    shutil.copy(exported("onnx") / "model.onnx", both)
    assert not is_export(both) and load_landmark_model(both)[0].config.num_landmarks == 5
    assert load_exported(both)[0].name_or_path == str(both)


def test_several_pictures_get_a_thread_each_and_a_video_all(exported, monkeypatch, tmp_path):
    counts = []
    monkeypatch.setattr(
        runtimes, "load_exported", lambda folder, threads: counts.append(threads) or load_exported(folder)
    )
    paths = [str(tmp_path / name) for name in ("a.png", "b.png", "c.mp4", "d.mp4")]
    for path in paths:
        Path(path).write_bytes(b"nothing")
    for inputs in (paths, paths[1:], paths[:1], paths[2:]):
        assert main(["detect", *inputs, "--model", str(exported("onnx"))]) == 2
    assert counts == [1, None, None, None]


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(FabRecError, match=r"^openvino is not installed: pip install 'fabrec-hf\[export\]'\.$"):
        need_package("openvino")


@pytest.mark.parametrize("format", FORMATS)
def test_a_damaged_export_is_one_clear_error(exported, tmp_path, format):
    for path in exported(format).iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    main_file = tmp_path / FORMATS[format][0]
    main_file.write_bytes(main_file.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="cannot be loaded") as caught:
        load_exported(tmp_path)
    assert "\n" not in str(caught.value)
    main_file.unlink()
    with pytest.raises(CheckpointError, match="holds no exported model"):
        load_exported(tmp_path)
