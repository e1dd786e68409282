"""A saved checkpoint loads where this package is not: its code comes with it."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import fabrec_hf
from fabrec_hf import (
    FabRecAutoencoder,
    FabRecAutoencoderConfig,
    FabRecConfig,
    FabRecForLandmarkDetection,
    FabRecImageProcessor,
    get_scheme,
)
from support.tiny_models import TINY


MODEL = Path(fabrec_hf.__file__).parent / "model"

# Runs in a process of its own that cannot import the package, and writes what it found as JSON.
SCRIPT = """
import json, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "fabrec_hf":
            raise ModuleNotFoundError("No module named 'fabrec_hf'", name=name)

sys.meta_path.insert(0, Blocker())
try:
    import fabrec_hf
except ModuleNotFoundError:
    pass
else:
    sys.exit("the package can still be imported")

import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel, AutoModelForKeypointDetection, pipeline

landmarks, autoencoder, saved_pipeline = sys.argv[1:]
trust = {"trust_remote_code": True}
processor = AutoImageProcessor.from_pretrained(landmarks, **trust)
picture = Image.radial_gradient("L").convert("RGB")
inputs = processor(picture, boxes=[[40, 50, 120, 130]])
found = {"classes": [type(processor).__name__], "landmarks": []}
for auto_class in (AutoModel, AutoModelForKeypointDetection):
    model = auto_class.from_pretrained(landmarks, **trust)
    with torch.no_grad():
        outputs = model(inputs["pixel_values"])
    faces = processor.post_process_keypoint_detection(outputs, inputs["crop_boxes"], num_images=1)[0]
    found["landmarks"].append(faces[0]["keypoints"].tolist())
    found["classes"].append(type(model).__name__)
found["modules"] = type(model).__module__
model = AutoModel.from_pretrained(autoencoder, **trust)
found["classes"].append(type(model).__name__)
with torch.no_grad():
    found["latent"] = model.encode(inputs["pixel_values"]).tolist()
detect = pipeline(model=saved_pipeline, device="cpu", **trust)
found["pipeline"] = detect(picture, boxes=[[40, 50, 120, 130]])[0]["keypoints"]
found["fabrec"] = [name for name in sys.modules if name.partition(".")[0] == "fabrec_hf"]
print("FOUND" + json.dumps(found))
"""


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Folders of a landmark model, an autoencoder and a pipeline, as `save_pretrained` writes them."""
    root = tmp_path_factory.mktemp("checkpoints")
    torch.manual_seed(0)
    config = FabRecConfig(
        **TINY,
        num_landmarks=5,
        landmark_scheme=get_scheme("mtfl").to_dict(),
        heatmap_size=32,
        heatmap_sigma=1.75,
        flip_average=True,
    )
    model, processor = FabRecForLandmarkDetection(config).eval(), FabRecImageProcessor(size=64)
    model.save_pretrained(root / "landmarks")
    processor.save_pretrained(root / "landmarks")
    FabRecAutoencoder(FabRecAutoencoderConfig(**TINY)).save_pretrained(root / "autoencoder")
    fabrec_hf.FaceLandmarkPipeline(model=model, image_processor=processor, device="cpu").save_pretrained(
        root / "pipeline"
    )
    return root


def local_imports(path):
    """Names of the modules beside `path` that it imports, by its syntax tree."""
    tree = ast.parse(path.read_text())
    return {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level == 1}


@pytest.mark.parametrize("kind", ["landmarks", "autoencoder", "pipeline"])
def test_the_code_that_comes_along_is_complete_and_self_contained(checkpoints, kind):
    files = {path.stem: path for path in (checkpoints / kind).glob("*.py")}
    assert {"configuration_fabrec", "modeling_fabrec"} <= set(files)
    assert ("pipeline_fabrec" in files) == (kind == "pipeline")
    for path in files.values():
        assert path.read_bytes() == (MODEL / path.name).read_bytes()
        assert local_imports(path) <= set(files), path.name
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert node.level < 2 and (node.module or node.level == 0), path.name
                assert not (node.module or "").startswith("fabrec_hf"), path.name
            elif isinstance(node, ast.Import):
                assert not any(alias.name.startswith("fabrec_hf") for alias in node.names), path.name
    assert sum(path.stat().st_size for path in files.values()) < 260_000


def test_auto_map_names_every_class(checkpoints):
    def auto_map(folder, file="config.json"):
        return json.loads((checkpoints / folder / file).read_text())["auto_map"]

    assert auto_map("landmarks") == {
        "AutoConfig": "configuration_fabrec.FabRecConfig",
        "AutoModel": "modeling_fabrec.FabRecForLandmarkDetection",
        "AutoModelForKeypointDetection": "modeling_fabrec.FabRecForLandmarkDetection",
    }
    assert auto_map("autoencoder") == {
        "AutoConfig": "configuration_fabrec.FabRecAutoencoderConfig",
        "AutoModel": "modeling_fabrec.FabRecAutoencoder",
    }
    assert auto_map("landmarks", "preprocessor_config.json") == {
        "AutoImageProcessor": "image_processing_fabrec.FabRecImageProcessor"
    }


def test_an_autoencoder_taken_out_of_a_landmark_model_does_not_claim_landmarks(checkpoints, tmp_path):
    FabRecAutoencoder.from_pretrained(checkpoints / "landmarks").save_pretrained(tmp_path)
    auto_map = json.loads((tmp_path / "config.json").read_text())["auto_map"]
    assert auto_map["AutoModel"] == "modeling_fabrec.FabRecAutoencoder"
    assert "AutoModelForKeypointDetection" not in auto_map


def test_with_the_package_its_own_classes_are_used(checkpoints):
    from transformers import AutoImageProcessor, AutoModel

    for trust in (None, True):
        model = AutoModel.from_pretrained(checkpoints / "landmarks", trust_remote_code=trust)
        assert type(model) is FabRecForLandmarkDetection
        assert (
            type(AutoModel.from_pretrained(checkpoints / "autoencoder", trust_remote_code=trust)) is FabRecAutoencoder
        )
        processor = AutoImageProcessor.from_pretrained(checkpoints / "landmarks", trust_remote_code=trust)
        assert type(processor) is FabRecImageProcessor


def test_loads_in_a_process_without_the_package(checkpoints, tmp_path):
    from PIL import Image

    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment.pop("HF_MODULES_CACHE", None)
    folders = [str(checkpoints / kind) for kind in ("landmarks", "autoencoder", "pipeline")]
    done = subprocess.run(
        [sys.executable, "-I", "-c", SCRIPT, *folders],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.rpartition("FOUND")[2])
    assert found["fabrec"] == []
    assert found["modules"].startswith("transformers_modules")
    assert found["classes"] == [
        "FabRecImageProcessor",
        "FabRecForLandmarkDetection",
        "FabRecForLandmarkDetection",
        "FabRecAutoencoder",
    ]

    processor = FabRecImageProcessor.from_pretrained(checkpoints / "landmarks")
    model = FabRecForLandmarkDetection.from_pretrained(checkpoints / "landmarks")
    inputs = processor(Image.radial_gradient("L").convert("RGB"), boxes=[[40, 50, 120, 130]])
    with torch.no_grad():
        outputs = model(inputs["pixel_values"])
        latent = FabRecAutoencoder.from_pretrained(checkpoints / "autoencoder").encode(inputs["pixel_values"])
    crop = inputs["crop_boxes"][0]
    expected = crop[:2] + outputs.landmarks[0] * crop[2:] - 0.5
    assert len({tuple(point) for point in expected.tolist()}) > 1
    for keypoints in (*found["landmarks"], found["pipeline"]):
        torch.testing.assert_close(torch.tensor(keypoints).double(), expected.double(), atol=1e-3, rtol=0)
    torch.testing.assert_close(torch.tensor(found["latent"]), latent, atol=1e-5, rtol=1e-5)
