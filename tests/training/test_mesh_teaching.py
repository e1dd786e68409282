"""What mesh teaching needs: a teacher behind a pipe, and an autoencoder with another encoder."""

import json
import sys
from pathlib import Path

import change_encoder
import mediapipe_teacher
import numpy as np
import pyarrow.parquet
import pytest
import torch
from accelerate import PartialState
from fewshot_sweep import Sweep, SweepArguments
from mesh_regression import MeshedFaces, mesh_regression_error
from training_utils import run_main

from fabrec_hf import FabRecAutoencoder
from fabrec_hf.checkpoints.loading import load_autoencoder
from fabrec_hf.errors import CheckpointError, DataError, FabRecError
from fabrec_hf.learning.labeled_faces import image_mean
from fabrec_hf.learning.linear_start import PENALTY
from fabrec_hf.model.known_schemes import get_scheme
from fabrec_hf.model.mesh_scheme import FOREHEAD, MESH_VERTICES, mesh_scheme
from support.tiny_checkpoints import save_autoencoder


WORKER = Path(__file__).parents[1] / "support" / "mesh_worker.py"


@pytest.fixture
def teacher(monkeypatch):
    monkeypatch.setattr(mediapipe_teacher, "WORKER", WORKER)
    return mediapipe_teacher.MediaPipeTeacher(sys.executable)


def test_the_scheme_mirrors_and_names_its_vertices():
    scheme = mesh_scheme()
    vertices = [vertex for part in MESH_VERTICES.values() for vertex in part]
    assert scheme.num_landmarks == len(set(vertices)) == 128 and set(FOREHEAD) <= set(MESH_VERTICES["contour"])
    assert scheme.point_names[vertices.index(61)] == "mouth_61"
    swapped = {vertices[a]: vertices[b] for a, b in scheme.flip_pairs}
    # Corners of the mouth and outer corners of the eyes, and points on the middle line.
    assert swapped[61] == 291 and {33, 263} <= {*swapped, *swapped.values()}
    assert not {10, 152, 1, 13} & {*swapped, *swapped.values()}
    assert get_scheme("mesh") == scheme


def test_the_teacher_gives_points_and_boxes_in_pixels_of_the_picture(teacher):
    image = np.zeros((60, 80, 3), np.uint8)
    image[20:40, 30:50] = 7
    ((first, second),) = teacher.find([image], [[[30, 20, 20, 16], [32, 22, 8, 8]]])
    assert teacher.find([image], [[[0, 0, 8, 8]]]) == [[]]  # black: no face
    # 0.375 of 20 on each side: the crop begins at (22.5, 12.5), rounded to even; pixel centers are half a pixel in.
    vertices = torch.tensor(teacher.vertices, dtype=torch.float32)
    expected = torch.stack([0.1 * vertices + 7 + 22 - 0.5, 0.2 * vertices + 7 + 12 - 0.5], dim=1)
    torch.testing.assert_close(first["keypoints"], expected)
    assert second["keypoints"].shape == (128, 2) and first["scores"].tolist() == [1.0] * 128
    framing = sorted(set(MESH_VERTICES["contour"] + MESH_VERTICES["brows"]) - set(FOREHEAD))
    low, high = 0.1 * framing[0] + 29, 0.1 * framing[-1] + 29
    torch.testing.assert_close(first["bbox"][[0, 2]], torch.tensor([low, high - low]))


def test_label_dataset_takes_the_teacher(teacher, drawn_faces, tmp_path, monkeypatch, capsys):
    import label_dataset

    monkeypatch.setattr(label_dataset, "MediaPipeTeacher", lambda python: teacher)
    out = tmp_path / "labels"
    label_dataset.main(
        label_dataset.LabelArguments(data=str(drawn_faces / "train.parquet"), output_dir=str(out), teacher="mediapipe")
    )
    assert "24 pictures" in capsys.readouterr().out
    (file,) = (out / "data").iterdir()
    rows = pyarrow.parquet.read_table(file).to_pylist()
    assert len(rows[0]["landmarks"]) == 128 and len(rows[0]["box"]) == 4
    about = json.loads((out / "face_set.json").read_text())
    assert about["scheme"]["name"] == "mesh"
    with pytest.raises(ValueError, match="--teacher"):
        label_dataset.LabelArguments(data="faces", output_dir="out", teacher="somebody")


def test_a_teacher_that_does_not_start_says_what_to_do(tmp_path, monkeypatch):
    broken = tmp_path / "broken.py"
    broken.write_text("raise SystemExit(1)")
    monkeypatch.setattr(mediapipe_teacher, "WORKER", broken)
    for python in (sys.executable, str(tmp_path / "no-such-python")):
        with pytest.raises(FabRecError, match="--teacher_python"):
            mediapipe_teacher.MediaPipeTeacher(python)


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    return save_autoencoder(tmp_path_factory.mktemp("old") / "autoencoder")


def arguments(old: Path, drawn_faces: Path, output: Path, **kwargs):
    values = {"data": [str(drawn_faces)], "autoencoder": str(old), "output_dir": str(output), "faces": 24}
    return change_encoder.ChangeArguments(**(values | {"backbone": "face_mesh"} | kwargs))


def test_another_encoder_leaves_the_generator_as_it_is(old, drawn_faces, tmp_path, caplog):
    PartialState._reset_state()  # as in a process of its own, where nothing has set accelerate up
    with caplog.at_level("INFO"):
        change_encoder.main(arguments(old, drawn_faces, tmp_path / "new"))
    assert "The new encoder explains" in caplog.text
    before, after = load_autoencoder(old), load_autoencoder(tmp_path / "new")
    assert after.config.backbone == "face_mesh" and after.config.encoder_pooling == "flatten"
    for name, value in before.decoder.state_dict().items():
        assert torch.equal(value, after.decoder.state_dict()[name])
    assert isinstance(after, FabRecAutoencoder) and after.encoder.fc.weight.shape == (8, 128 * 9)


def test_the_last_layer_is_the_ridge_solution(old):
    torch.manual_seed(0)
    before = load_autoencoder(old)
    config = type(before.config).from_dict(before.config.to_dict() | {"backbone": "face_mesh"})
    new = FabRecAutoencoder(config).eval()
    canvases = torch.randint(0, 255, (40, 3, 32, 32), dtype=torch.uint8)
    plain = pytest.MonkeyPatch()
    with plain.context() as patch, torch.no_grad():
        patch.setattr(change_encoder, "CHANGES", change_encoder.AugmentationConfig(flip=0))
        patch.setattr(change_encoder, "LONGEST", float("inf"))
        explained = change_encoder.solve_last_layer(new.encoder, before.encoder, canvases)
        crops = canvases / 255 - image_mean(torch.device("cpu"))
        features, targets = new.encoder.features(crops).double().numpy(), before.encode(crops).double().numpy()
        found = new.encode(crops).numpy()
    centered, moved = features - features.mean(0), targets - targets.mean(0)
    penalty = PENALTY * (centered**2).sum() / centered.shape[1]
    # The same in the space of faces, by the other form of the solution.
    dual = np.linalg.solve(centered @ centered.T + penalty * np.eye(40), moved)
    np.testing.assert_allclose(found, centered @ centered.T @ dual + targets.mean(0), atol=1e-4)
    rest = (found - targets) ** 2
    assert explained == pytest.approx(1 - rest.sum() / (moved**2).sum(), abs=1e-3) and 0 < explained < 1


def test_what_is_wrong_is_said_in_one_line(old, drawn_faces, tmp_path, capsys):
    with pytest.raises(CheckpointError, match="no such file"):
        change_encoder.main(arguments(old, drawn_faces, tmp_path / "a", weights=str(tmp_path / "none.tflite")))
    lacking = tmp_path / "lacking.pt"
    torch.save({}, lacking)
    with pytest.raises(CheckpointError, match="lacks 88 weights"):
        change_encoder.main(arguments(old, drawn_faces, tmp_path / "b", weights=str(lacking)))
    with pytest.raises(DataError, match="name a new folder"):
        change_encoder.main(arguments(old, drawn_faces, old))
    with pytest.raises(SystemExit, match="2"):
        run_main(change_encoder.main, arguments(old, drawn_faces, tmp_path / "c", backbone="no_such_net"))
    assert "no_such_net" in capsys.readouterr().err and not (tmp_path / "c").exists()


class Meshed:
    """What `MeshedFaces` holds, without pictures."""

    def __init__(self, meshes, landmarks):
        self.meshes, self.landmarks = meshes, landmarks
        self.found, self.boxes = meshes.isfinite().flatten(1).all(1), np.tile([0.0, 0.0, 1.0, 1.0], (len(meshes), 1))


def test_the_baseline_is_scored_by_the_schemes_normalizer():
    generator = torch.Generator().manual_seed(0)
    meshes = torch.rand(478, 2, generator=generator) + 0.05 * torch.randn(5, 478, 2, generator=generator)
    truth = meshes[:, :5] + 0.1
    training, rows = Meshed(meshes, truth), np.array([0])
    # One face fixes the offset of every point from the vertex that it goes with, in units of its size.
    found = mesh_regression_error(training, rows, Meshed(meshes[:1], truth[:1]), get_scheme("mtfl"))
    assert found == pytest.approx(0, abs=1e-3)
    away = (truth[1] - truth[0]).norm(dim=-1).mean() / (truth[1, 0] - truth[1, 1]).norm()
    missed = Meshed(torch.full((1, 478, 2), torch.nan), truth[1:2])
    found = mesh_regression_error(training, rows, missed, get_scheme("mtfl"))
    assert found == pytest.approx(100 * float(away), rel=1e-4)


def test_a_sweep_has_the_baseline_of_the_same_faces_beside_it(old, drawn_faces, tmp_path, monkeypatch):
    monkeypatch.setattr(mediapipe_teacher, "WORKER", WORKER)
    arguments = SweepArguments(
        data=[str(drawn_faces)],
        output_dir=str(tmp_path),
        autoencoder=str(old),
        heatmap_size=16,
        shots=["3:1:0"],
        draws=2,
        validation_fraction=0.3,
        protocols=["random"],
    )
    found = Sweep(arguments)
    cells = found.cells()
    errors = found.peer_errors(cells, tmp_path / "peer.json")
    teacher, (training, scored) = mediapipe_teacher.MediaPipeTeacher(), found.datasets
    faces = MeshedFaces(scored, teacher)
    for cell in cells:
        alone = MeshedFaces(training.select(found.rows(cell)), teacher)
        assert errors[cell.name] == pytest.approx(mesh_regression_error(alone, np.arange(3), faces, found.scheme))
    assert len(set(errors.values())) == 2, "two draws of different faces"
    # What is known needs no MediaPipe; what is not says how to get it.
    monkeypatch.setattr(mediapipe_teacher, "WORKER", tmp_path / "none.py")
    assert found.peer_errors(cells, tmp_path / "peer.json") == errors
    with pytest.raises(FabRecError, match="--teacher_python"):
        found.peer_errors(cells, tmp_path / "other.json")
