"""Published checkpoints load wherever a user may want them: every proof in a fresh process with a fresh cache."""

import json

import pytest
import torch

from fabrec_hf import FabRecAutoencoder, FabRecForLandmarkDetection
from fabrec_hf.hub.publishing import push
from support.hub_client import run_python
from support.tiny_checkpoints import TINY, save_autoencoder, save_landmarks


# Prints what the model makes of one fixed input, as exact hexadecimal numbers.
PREAMBLE = """
import json, os, sys
import torch
from transformers import AutoImageProcessor, AutoModel, AutoModelForKeypointDetection, pipeline

torch.set_num_threads(1)

def bits(tensor):
    return [float(value).hex() for value in tensor.flatten().tolist()]

def pixels():
    return torch.linspace(-0.5, 0.5, 3 * 32 * 32).view(1, 3, 32, 32)

def landmarks(model):
    with torch.no_grad():
        return bits(model.eval()(pixels()).landmarks)

def finish(**found):
    print("FOUND" + json.dumps(found))
"""

BLOCK = """
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "fabrec_hf":
            raise ModuleNotFoundError("No module named 'fabrec_hf'", name=name)

import sys
sys.meta_path.insert(0, Blocker())
"""

WITH_PACKAGE = (
    PREAMBLE
    + """
import fabrec_hf
repository, autoencoder, folder, commit = sys.argv[1:]
model, report = fabrec_hf.FabRecForLandmarkDetection.from_pretrained(
    autoencoder, num_landmarks=7, output_loading_info=True, heatmap_size=16
)
other, changed = fabrec_hf.FabRecForLandmarkDetection.from_pretrained(
    repository, num_landmarks=9, landmark_scheme=None, ignore_mismatched_sizes=True, output_loading_info=True
)
try:
    fabrec_hf.FabRecForLandmarkDetection.from_pretrained(repository, num_landmarks=9, landmark_scheme=None)
    refused = ""
except RuntimeError as error:
    refused = str(error)
loaded = AutoModel.from_pretrained(repository)
finish(
    main=landmarks(loaded),
    classes=[type(loaded).__module__, type(AutoImageProcessor.from_pretrained(repository)).__name__],
    keypoints=landmarks(AutoModelForKeypointDetection.from_pretrained(repository)),
    revision=landmarks(AutoModel.from_pretrained(repository, revision="shots-10")),
    commit=landmarks(AutoModel.from_pretrained(repository, revision=commit)),
    folder=landmarks(AutoModel.from_pretrained(folder)),
    pipeline=len(pipeline("face-landmark-detection", model=repository, device="cpu").model.config.landmark_scheme),
    head=sorted(report["missing_keys"]),
    heatmaps=list(model(pixels()).heatmaps.shape),
    encoder=bits(model.autoencoder.encode(pixels())),
    mismatched=sorted(key for key, *_ in changed["mismatched_keys"]),
    kept=bits(other.autoencoder.encode(pixels())),
    landmarks=list(other(pixels()).landmarks.shape),
    refused="heatmap_head" in refused or "ignore_mismatched_sizes" in refused,
)
"""
)

WITHOUT_PACKAGE = (
    BLOCK
    + PREAMBLE
    + """
repository = sys.argv[1]
trust = {"trust_remote_code": True}
model = AutoModel.from_pretrained(repository, **trust)
revision = AutoModelForKeypointDetection.from_pretrained(repository, revision="shots-10", **trust)
processor = AutoImageProcessor.from_pretrained(repository, **trust)
from PIL import Image
detect = pipeline(model=repository, device="cpu", **trust)
faces = detect(Image.radial_gradient("L").convert("RGB"), boxes=[[40, 50, 120, 130]])
finish(
    main=landmarks(model),
    revision=landmarks(revision),
    module=type(model).__module__,
    processor=type(processor).__name__,
    points=len(faces[0]["keypoints"]),
    package=[name for name in sys.modules if name.partition(".")[0] == "fabrec_hf"],
)
"""
)

EMBEDDED = (
    PREAMBLE
    + """
import socket

def no_network(*arguments):
    raise OSError("the network was asked for")

socket.socket.connect = no_network
import fabrec_hf
from fabrec_hf.checkpoints.loading import load_autoencoder, load_landmark_model

name, autoencoder = "3fabrec-300w", "3fabrec-autoencoder"
model, processor = load_landmark_model(name)
detectors = [
    pipeline("face-landmark-detection", model=fabrec_hf.weights_path(name), device="cpu"),
    pipeline("face-landmark-detection", device="cpu"),
]
head = fabrec_hf.FabRecForLandmarkDetection.from_pretrained(autoencoder, num_landmarks=7, heatmap_size=64)
inputs = torch.linspace(-0.5, 0.5, 3 * 128 * 128).view(1, 3, 128, 128)
finish(
    models=[
        bits(kind.eval()(inputs).landmarks)
        for kind in (model, fabrec_hf.FabRecForLandmarkDetection.from_pretrained(name), *(d.model for d in detectors))
    ],
    latents=[
        bits(kind.eval().encode(inputs))
        for kind in (
            load_autoencoder(autoencoder),
            fabrec_hf.FabRecAutoencoder.from_pretrained(autoencoder),
            head.autoencoder,
        )
    ],
    sizes=[
        kind.size.height
        for kind in (
            processor,
            fabrec_hf.FabRecImageProcessor.from_pretrained(name),
            fabrec_hf.FabRecImageProcessorPil.from_pretrained(name),
            *(d.image_processor for d in detectors),
        )
    ],
    points=fabrec_hf.FabRecConfig.from_pretrained(name).num_landmarks,
    latent=fabrec_hf.FabRecAutoencoderConfig.from_pretrained(autoencoder).latent_size,
)
"""
)


@pytest.fixture(scope="module")
def published(hub, tmp_path_factory):
    """The checkpoints in `faces/loading`, main and shots-10, and `faces/loading-autoencoder`; the main commit."""
    root = tmp_path_factory.mktemp("published")
    main, few = save_landmarks(root / "main", seed=1), save_landmarks(root / "few" / "shots-10", seed=2)
    autoencoder = save_autoencoder(root / "autoencoder", seed=3)
    *_, last = push(main, "faces/loading", few_shot=root / "few", api=hub.api())
    push(autoencoder, "faces/loading-autoencoder", api=hub.api())
    return {"main": main, "shots-10": few, "autoencoder": autoencoder, "commit": last.commit}


@pytest.fixture(scope="module")
def expected(published):
    """What each checkpoint makes of the fixed input, bit for bit, before it was published."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    images = torch.linspace(-0.5, 0.5, 3 * 32 * 32).view(1, 3, 32, 32)
    found = {}
    with torch.no_grad():
        for name in ("main", "shots-10"):
            model = FabRecForLandmarkDetection.from_pretrained(published[name]).eval()
            found[name] = bits(model(images).landmarks)
            found[f"{name} latent"] = bits(model.autoencoder.encode(images))
        found["latent"] = bits(FabRecAutoencoder.from_pretrained(published["autoencoder"]).eval().encode(images))
    torch.set_num_threads(threads)
    assert found["main"] != found["shots-10"]
    return found


def bits(tensor):
    return [float(value).hex() for value in tensor.flatten().tolist()]


def test_by_name_with_the_package(hub, published, expected, tmp_path):
    arguments = ["faces/loading", "faces/loading-autoencoder", str(published["main"]), published["commit"]]
    found = run_python(WITH_PACKAGE, *arguments, environment=hub.environment(tmp_path))
    assert found["classes"] == ["fabrec_hf.model.modeling_fabrec", "FabRecImageProcessor"]
    for way in ("main", "keypoints", "commit", "folder"):
        assert found[way] == expected["main"], way
    assert found["revision"] == expected["shots-10"]
    # The autoencoder under a landmark checkpoint: its weights are there, and the new layers alone are not.
    assert found["head"] and all(key.startswith(("heatmap_head.", "transfer_layers.")) for key in found["head"])
    assert found["encoder"] == expected["latent"] and found["heatmaps"] == [1, 7, 16, 16]
    # Another scheme: the head alone is new, and only if asked for.
    assert found["mismatched"] == ["heatmap_head.weight"] and found["kept"] == expected["main latent"]
    assert found["landmarks"] == [1, 9, 2] and found["refused"]


OFFLINE = (
    PREAMBLE
    + """
from fabrec_hf.checkpoints.loading import load_autoencoder, load_landmark_model
model, processor = load_landmark_model(sys.argv[1])
finish(
    loader=landmarks(model),
    auto=landmarks(AutoModel.from_pretrained(sys.argv[1])),
    size=processor.size.height,
    latent=bits(load_autoencoder(sys.argv[2]).encode(pixels())),
)
"""
)


def test_with_the_package_and_then_offline_from_the_cache(hub, published, expected, tmp_path):
    online = hub.environment(tmp_path, token=None)
    first = run_python(OFFLINE, "faces/loading", "faces/loading-autoencoder", environment=online)
    assert first["loader"] == first["auto"] == expected["main"] and first["latent"] == expected["latent"]
    seen = len(hub.log())
    offline = online | {"HF_HUB_OFFLINE": "1"}
    assert run_python(OFFLINE, "faces/loading", "faces/loading-autoencoder", environment=offline) == first
    assert len(hub.log()) == seen


def test_without_the_package_and_then_offline_from_the_cache(hub, published, expected, tmp_path):
    online = hub.environment(tmp_path, token=None)
    online.pop("PYTHONPATH")
    first = run_python(WITHOUT_PACKAGE, "faces/loading", environment=online)
    assert first["package"] == [] and first["module"].startswith("transformers_modules.")
    assert first["main"] == expected["main"] and first["revision"] == expected["shots-10"]
    assert first["processor"] == "FabRecImageProcessor" and first["points"] == 5
    seen = len(hub.log())
    offline = run_python(WITHOUT_PACKAGE, "faces/loading", environment=online | {"HF_HUB_OFFLINE": "1"})
    assert offline == first
    assert len(hub.log()) == seen


def test_embedded_names_need_no_network(hub, tmp_path):
    found = run_python(EMBEDDED, environment=hub.environment(tmp_path, HF_ENDPOINT="http://127.0.0.1:9"))
    for way in ("models", "latents"):
        assert all(values == found[way][0] for values in found[way]), way
    assert len(found["models"][0]) == 2 * 68 and len(found["latents"][0]) == 99
    assert found["sizes"] == [128] * 5 and (found["points"], found["latent"]) == (68, 99)


FOLDER_OR_REVISION = """
import json, os, sys
from fabrec_hf import FabRecConfig, FabRecForLandmarkDetection, FabRecImageProcessor

name, revision = "3fabrec-300w", sys.argv[1]
points, asked = FabRecConfig.from_pretrained(name).num_landmarks, []
sizes = [FabRecImageProcessor.from_pretrained(name).size.height, FabRecForLandmarkDetection.from_pretrained(name)]
sizes[1] = sizes[1].config.image_size
os.chdir("/")
for kind in (FabRecConfig, FabRecForLandmarkDetection, FabRecImageProcessor):
    try:
        kind.from_pretrained(name, revision=revision)
    except OSError:
        asked.append(kind.__name__)
print("FOUND" + json.dumps([points, sizes, asked]))
"""


def test_a_folder_of_an_embedded_name_and_a_revision_of_it_come_first(hub, tmp_path):
    save_landmarks(tmp_path / "3fabrec-300w")
    found = run_python(FOLDER_OR_REVISION, "shots-10", environment=hub.environment(tmp_path))
    assert found == [5, [32, 32], ["FabRecConfig", "FabRecForLandmarkDetection", "FabRecImageProcessor"]]
    assert any("/3fabrec-300w/" in line and "shots-10" in line for line in hub.log())


def test_the_code_beside_a_checkpoint_knows_no_embedded_names(published, tmp_path):
    (source,) = published["main"].glob("embedded_fabrec.py")
    names: dict = {"__file__": str(tmp_path / source.name), "__name__": "embedded_fabrec"}
    exec(compile(source.read_text(), source.name, "exec"), names)
    assert names["embedded_names"]() == [] and names["embedded_or_given"]("3fabrec-300w") == "3fabrec-300w"


def test_a_private_or_missing_repository_is_one_line(hub, published, tmp_path):
    push(published["main"], "faces/private-loading", private=True, api=hub.api())
    script = """
import json, sys
from fabrec_hf.checkpoints.loading import load_landmark_model
from fabrec_hf.errors import CheckpointError
lines = []
for name in ("faces/private-loading", "faces/nowhere"):
    try:
        load_landmark_model(name)
    except CheckpointError as error:
        lines.append(str(error))
print("FOUND" + json.dumps(lines))
"""
    lines = run_python(script, environment=hub.environment(tmp_path, token=None))
    assert len(lines) == 2 and all("\n" not in line and "cannot be loaded" in line for line in lines)
    assert all("or it is private: log in" in line for line in lines)
    (tmp_path / "other").mkdir()
    assert run_python(script, environment=hub.environment(tmp_path / "other")) == lines[1:]
    for name, line in zip(("faces/private-loading", "faces/nowhere"), lines, strict=True):
        assert name in line


def test_the_fixed_input_fits_the_tiny_checkpoints(published):
    assert json.loads((published["main"] / "config.json").read_text())["image_size"] == TINY["image_size"] == 32
