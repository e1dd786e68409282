"""The notebooks in examples/ run from their first cell to their last."""

import json
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from fabrec_hf import FabRecAutoencoder, FabRecAutoencoderConfig, FabRecForLandmarkDetection
from support.tiny_checkpoints import TINY


EXAMPLES = Path(__file__).parents[1] / "examples"
NOTEBOOKS = ("train_with_trainer.ipynb", "ten_faces_colab.ipynb")


def run_notebook(name: str, folder: Path, monkeypatch, **parameters) -> nbformat.NotebookNode:
    """Run a notebook in a folder, with other values in its cell of parameters."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(folder / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLES.parent))
    monkeypatch.setenv("IPYTHONDIR", str(folder / "ipython"))
    notebook = nbformat.read(EXAMPLES / name, as_version=4)
    cell = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", ()))
    for key in parameters:
        assert f"\n{key} = " in f"\n{cell.source}"
    cell.source += "".join(f"\n{key} = {value!r}" for key, value in parameters.items())
    client = NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    return client.execute()


def shown(notebook: nbformat.NotebookNode) -> list[dict]:
    """What the cells show, by MIME type."""
    return [output["data"] for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_no_notebook_carries_results(name):
    cells = json.loads((EXAMPLES / name).read_text())["cells"]
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in cells)
    assert name in (EXAMPLES / "README.md").read_text()


def test_the_trainer_in_a_notebook(drawn_faces, tmp_path, monkeypatch):
    # Of the size that heatmaps have if nothing is said.
    FabRecAutoencoder(FabRecAutoencoderConfig(**TINY | {"image_size": 128})).save_pretrained(tmp_path / "autoencoder")
    done = run_notebook(
        "train_with_trainer.ipynb",
        tmp_path,
        monkeypatch,
        MODEL=str(tmp_path / "autoencoder"),
        DATA=str(drawn_faces),
        SPLITS=("train", "train"),
        SCHEME="mtfl",
        STEPS=4,
        BATCH=4,
        OUTPUT="trained",
    )
    results = shown(done)
    assert results[0]["text/plain"] == "(24, 24)"
    nme, failures, auc = eval(next(data["text/plain"] for data in results[1:] if data["text/plain"].startswith("(")))
    assert 0 < nme < 1000 and 0 <= failures <= 100 and 0 <= auc <= 1
    assert "image/png" in results[-1]
    model = FabRecForLandmarkDetection.from_pretrained(tmp_path / "trained")
    assert model.config.num_landmarks == 5 and model.config.landmark_scheme["name"] == "mtfl"
    assert {"checkpoint-2", "checkpoint-4"} <= {path.name for path in (tmp_path / "trained").iterdir()}


def test_ten_faces_in_a_notebook(drawn_faces, tmp_path, monkeypatch):
    done = run_notebook(
        "ten_faces_colab.ipynb",
        tmp_path,
        monkeypatch,
        DATA=str(drawn_faces),
        PHOTO=str(EXAMPLES / "astronaut.jpg"),
        OUTPUT="detector",
        OPTIONS=["--shots", "10", "--scheme", "mtfl", "--instant", "--folds", "0"],
    )
    texts = [
        output["text"] for cell in done.cells for output in cell.get("outputs", []) if output.get("name") == "stdout"
    ]
    assert texts[0].startswith("Learned 5 points from 10 faces")
    scores = json.loads(texts[-1].splitlines()[-1])
    assert [len(face) for face in scores] == [5]
    assert "image/png" in shown(done)[-1]
    assert (tmp_path / "detector" / "model.safetensors").is_file()
