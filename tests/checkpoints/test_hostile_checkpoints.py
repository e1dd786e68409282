"""Damaged, wrong and hostile checkpoints: one clear error, nothing executed, no memory taken for mere claims."""

import json
import pickle
import struct
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from fabrec_hf.checkpoints import loading
from fabrec_hf.checkpoints.loading import load_autoencoder, load_landmark_model
from fabrec_hf.errors import CheckpointError
from support.fuzzing import fuzz
from support.landmark_checkpoints import DAMAGE, loads_or_is_refused, refused, save_landmark_model


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return save_landmark_model(tmp_path_factory.mktemp("original"))


@pytest.fixture
def checkpoint(original, tmp_path):
    return copy_files(original, tmp_path / "checkpoint")


def copy_files(source, target):
    target.mkdir(exist_ok=True)
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


def edit_config(folder, file="config.json", **fields):
    values = json.loads((folder / file).read_text()) | fields
    (folder / file).write_text(json.dumps(values))


BOTH = (load_landmark_model, load_autoencoder)


@pytest.mark.parametrize("share", [0.0, 0.0001, 0.5, 0.999])
def test_truncated_weights(checkpoint, share):
    path = checkpoint / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    refused(checkpoint, "cannot be loaded", loaders=BOTH)


@pytest.mark.parametrize(
    "content",
    [
        struct.pack("<Q", 2**63) + b"{}",
        struct.pack("<Q", 10) + b"not json!!",
        struct.pack("<Q", 2) + b"{}",
        b"PK\x03\x04" + b"\0" * 100,
        bytes(range(256)) * 20,
    ],
    ids=["header of 2^63 bytes", "header without JSON", "no weights", "a zip archive", "noise"],
)
def test_weights_that_are_something_else(checkpoint, content):
    (checkpoint / "model.safetensors").write_bytes(content)
    refused(checkpoint, str(checkpoint), loaders=BOTH)


def test_offsets_beyond_the_file(checkpoint):
    header = json.dumps({"heatmap_head.weight": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}})
    (checkpoint / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header.encode() + b"\0" * 64)
    refused(checkpoint, "cannot be loaded", loaders=BOTH)


class Execute:
    """Unpickled, it creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
@pytest.mark.parametrize("writer", ["pickle", "torch"])
def test_pickles_are_not_executed(checkpoint, tmp_path, name, writer):
    (checkpoint / "model.safetensors").unlink()
    marker = tmp_path / "executed"
    if writer == "pickle":
        (checkpoint / name).write_bytes(pickle.dumps({"heatmap_head.weight": Execute(marker)}))
    else:
        torch.save({"heatmap_head.weight": Execute(marker)}, checkpoint / name)
    refused(checkpoint, loaders=BOTH)
    assert not marker.exists()


def test_code_beside_the_weights_is_not_executed(checkpoint, tmp_path):
    marker = tmp_path / "executed"
    for path in [*checkpoint.glob("*.py"), checkpoint / "evil.py"]:
        path.write_text(f"open({str(marker)!r}, 'w')\n")
    reference = {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil", "AutoImageProcessor": "evil.Evil"}
    edit_config(checkpoint, auto_map=reference)
    edit_config(checkpoint, "preprocessor_config.json", auto_map=reference)
    model, _ = load_landmark_model(checkpoint)
    assert type(model).__module__ == "fabrec_hf.model.modeling_fabrec"
    assert not marker.exists()


IMPOSSIBLE = [
    {"widths": [4, 4, 8, 10**6]},
    {"widths": [10**9] * 4},
    {"num_landmarks": 10**9, "landmark_scheme": None},
    {"latent_size": 10**9},
    {"encoder_depth": 10**9},
    {"image_size": 2**40},
    {"image_size": 2**4000},
    {"image_size": -1},
    {"widths": []},
    {"widths": "4488"},
    {"heatmap_size": 0},
    {"model_type": "bert"},
    {"landmark_scheme": {"num_landmarks": 5}},
    {"landmark_scheme": [1, 2]},
]

SCRIPT = """
import resource, sys
from fabrec_hf.errors import CheckpointError
from fabrec_hf.checkpoints.loading import load_landmark_model

used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, used + 2**30))
for folder in sys.argv[1:]:
    try:
        load_landmark_model(folder)
    except CheckpointError as error:
        assert "\\n" not in str(error)
        print("refused")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is limited as Linux does")
def test_configurations_that_ask_for_the_impossible(original, tmp_path):
    # Building what they describe would take all memory, or all time. In a process with a limit an attempt shows.
    folders = [copy_files(original, tmp_path / str(index)) for index in range(len(IMPOSSIBLE))]
    for folder, fields in zip(folders, IMPOSSIBLE, strict=True):
        edit_config(folder, **fields)
    done = subprocess.run([sys.executable, "-c", SCRIPT, *folders], capture_output=True, text=True, timeout=600)
    assert done.stdout.split() == ["refused"] * len(IMPOSSIBLE), done.stderr[-500:]


BROKEN = [b"", b"[]", b"null", b"7", b'{"a"', b"\xff\xfe", b"[" * 9999, b'{"size": []}']


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json"])
@pytest.mark.parametrize("content", BROKEN, ids=lambda content: repr(content[:8]))
def test_broken_json(checkpoint, file, content):
    (checkpoint / file).write_bytes(content)
    refused(checkpoint, str(checkpoint))


def test_weights_of_another_shape_or_none(checkpoint):
    weights = load_file(checkpoint / "model.safetensors")
    save_file({**weights, "heatmap_head.weight": torch.zeros(4, 6, 4, 4)}, checkpoint / "model.safetensors")
    refused(checkpoint, "heatmap_head.weight has the shape (4, 6, 4, 4)")
    weights.pop("heatmap_head.weight")
    save_file(weights, checkpoint / "model.safetensors")
    refused(checkpoint, "is incomplete: it lacks heatmap_head.weight")


@fuzz(0.1)
@given(file=st.sampled_from(["model.safetensors", "config.json", "preprocessor_config.json"]), **DAMAGE)
def test_any_change_of_any_file_loads_or_is_refused(original, tmp_path_factory, file, changes, cut):
    folder = copy_files(original, tmp_path_factory.getbasetemp() / "changed")
    content = (original / file).read_bytes()
    reach = 600 if file == "model.safetensors" else len(content)  # the header; a changed number is still a number
    loads_or_is_refused(folder, file, content, reach, changes, cut)


def test_a_configuration_that_is_a_list_has_no_kind(checkpoint):
    (checkpoint / "config.json").write_text("[]")
    for load in (loading.checkpoint_kind, loading.load_checkpoint):
        with pytest.raises(CheckpointError, match="holds no configuration"):
            load(checkpoint)


@pytest.mark.parametrize(
    ("file", "raised"), [(loading.PACKAGE / "model/layers.py", AttributeError), ("library.py", CheckpointError)]
)
def test_a_mistake_of_this_package_is_not_the_checkpoints(checkpoint, monkeypatch, file, raised):
    """The same line fails in a file of the package and in one of a library."""
    names = {}
    exec(compile("def broken(*values):\n    return values.nothing_like_that", str(file), "exec"), names)
    monkeypatch.setattr(loading, "_check_kind", names["broken"])
    with pytest.raises(raised, match="nothing_like_that"):
        loading.load_landmark_model(checkpoint)
