"""Putting a checkpoint into the package: in 16 bits, whole or not at all, and what was measured of it is kept."""

import json
from argparse import Namespace

import embed_checkpoint
import pytest
import torch
from safetensors.torch import load_file

from fabrec_hf.errors import CheckpointError
from support.tiny_checkpoints import save_autoencoder


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A finished run, and the folder of an embedded checkpoint of which results are there already."""
    monkeypatch.setattr(embed_checkpoint, "WEIGHTS", tmp_path / "weights")
    target = tmp_path / "weights" / "tiny"
    target.mkdir(parents=True)
    (target / "results.json").write_text('{"steps": 7}')
    return save_autoencoder(tmp_path / "run"), target


def test_a_finished_run_becomes_an_embedded_checkpoint(places):
    run, target = places
    (target / "old.py").touch()
    words = Namespace(source=run, name="tiny", rank=None, autoencoder="3fabrec-autoencoder")
    before = sorted(run.iterdir())
    embed_checkpoint.main(words)
    assert sorted(run.iterdir()) == before
    names = {path.name for path in target.iterdir()}
    assert {"config.json", "model.safetensors", "preprocessor_config.json", "results.json"} <= names
    assert (
        not any(name.endswith(".py") for name in names)
        and json.loads((target / "results.json").read_text())["steps"] == 7
    )
    kept, whole = load_file(target / "model.safetensors"), load_file(run / "model.safetensors")
    assert all(torch.equal(kept[name], whole[name].half()) for name in whole if whole[name].is_floating_point())
    assert json.loads((target / "config.json").read_text())["dtype"] == "float32"


def test_weights_that_do_not_fit_leave_everything_as_it_was(places, monkeypatch):
    run, target = places

    def fail(source, partial):
        partial.mkdir()
        (partial / "model.safetensors").write_bytes(b"half")
        raise CheckpointError("a weight does not fit into 16 bits")

    monkeypatch.setattr(embed_checkpoint, "_save_whole", fail)
    before = sorted(run.iterdir())
    with pytest.raises(CheckpointError, match="16 bits"):
        embed_checkpoint.main(Namespace(source=run, name="tiny", rank=None, autoencoder="3fabrec-autoencoder"))
    assert sorted(run.iterdir()) == before and [path.name for path in target.iterdir()] == ["results.json"]
