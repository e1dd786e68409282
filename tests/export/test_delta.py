"""Detectors that are kept as their difference from an autoencoder: what comes back, and what is refused."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from fabrec_hf import FabRecAutoencoder
from fabrec_hf.checkpoints.loading import load_autoencoder, load_landmark_model
from fabrec_hf.cli import main
from fabrec_hf.errors import CheckpointError
from fabrec_hf.export.delta import save_delta
from fabrec_hf.hub.contents import gather
from fabrec_hf.model.delta_fabrec import DELTA_NAME, apply_delta, make_delta
from support.commands import fails_with
from support.fuzzing import fuzz
from support.landmark_checkpoints import DAMAGE, loads_or_is_refused, refused
from support.tiny_checkpoints import save_autoencoder, save_landmarks
from support.tiny_models import random_statistics


CONVOLUTION = "autoencoder.encoder.stages.1.0.conv1.weight"


def crops(count, size=32):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0)) - 0.45


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory):
    folder = save_autoencoder(tmp_path_factory.mktemp("autoencoder"))
    random_statistics(load_autoencoder(folder)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def taught(autoencoder, tmp_path_factory):
    """A detector on that autoencoder whose encoder and transfer layers have moved, as fine-tuning moves them."""
    folder = save_landmarks(tmp_path_factory.mktemp("taught"))
    model, processor = load_landmark_model(folder)
    model.autoencoder.load_state_dict(load_autoencoder(autoencoder).state_dict())
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.autoencoder.encoder.parameters():
            parameter += 0.1 * parameter.std(correction=0) * torch.randn_like(parameter)
    model.save_pretrained(folder)
    return model.eval(), processor, folder


@pytest.fixture
def delta(taught, autoencoder, tmp_path):
    return save_delta(*taught[:2], tmp_path / "delta", str(autoencoder), rank=99)


def rewrite(folder, change=None, metadata=None):
    """Write the delta of a folder anew after `change` of its tensors and with other metadata."""
    with safe_open(folder / DELTA_NAME, "pt") as content:
        about = content.metadata()
    tensors = load_file(folder / DELTA_NAME)
    if change:
        change(tensors)
    save_file(tensors, folder / DELTA_NAME, about if metadata is None else metadata)


def test_only_changes_are_kept_and_those_of_convolutions_as_two_thin_matrices():
    base = {
        "encoder.conv.weight": torch.zeros(2, 2, 1, 1),
        "encoder.fc.bias": torch.ones(2),
        "decoder.w": torch.ones(1),
    }
    change = torch.tensor([[0.0, 3.0], [0.0, 4.0]])  # one direction, of strength 5
    learned = {
        "autoencoder.encoder.conv.weight": change[:, :, None, None],
        "autoencoder.encoder.fc.bias": torch.ones(2),
        "autoencoder.decoder.w": torch.ones(1),
        "heatmap_head.weight": torch.full((1, 1, 4, 4), 0.5),
    }
    kept = make_delta(learned, base, rank=1)
    columns, rows = (kept[f"autoencoder.encoder.conv.weight.delta_{name}"] for name in ("columns", "rows"))
    assert set(kept) == {
        "autoencoder.encoder.conv.weight.delta_columns",
        "autoencoder.encoder.conv.weight.delta_rows",
        "heatmap_head.weight",
    }
    assert {value.dtype for value in kept.values()} == {torch.float16}
    sign = columns[0, 0].sign()
    root = 5**0.5
    torch.testing.assert_close(sign * columns.float(), torch.tensor([[0.6], [0.8]]) * root, atol=1e-3, rtol=0)
    torch.testing.assert_close(sign * rows.float(), torch.tensor([[0.0, 1.0]]) * root, atol=1e-3, rtol=0)
    whole = apply_delta(kept, base)
    assert set(whole) == set(learned)
    for name, value in learned.items():
        torch.testing.assert_close(whole[name], value, atol=3e-3, rtol=0)
    assert base["encoder.conv.weight"].count_nonzero() == 0


def test_a_rank_keeps_the_directions_that_change_most():
    base = {"encoder.conv.weight": torch.zeros(3, 3, 1, 1)}
    learned = {"autoencoder.encoder.conv.weight": torch.diag(torch.tensor([1.0, 4.0, 2.0]))[:, :, None, None]}
    whole = apply_delta(make_delta(learned, base, rank=2), base)["autoencoder.encoder.conv.weight"]
    torch.testing.assert_close(whole[:, :, 0, 0], torch.diag(torch.tensor([0.0, 4.0, 2.0])), atol=4e-3, rtol=0)


def test_a_delta_is_a_checkpoint_like_any_other(taught, delta):
    model, _, folder = taught
    with torch.no_grad():
        expected = model(crops(3))
        found = AutoModel.from_pretrained(delta).eval()(crops(3))
        within = load_autoencoder(delta)(crops(3)).reconstruction
        again = AutoModel.from_pretrained(delta, flip_average=True, dtype=torch.bfloat16)
    torch.testing.assert_close(found.heatmaps, expected.heatmaps, atol=3e-3, rtol=0)
    torch.testing.assert_close(within, load_autoencoder(folder)(crops(3)).reconstruction, atol=3e-3, rtol=0)
    assert again.config.flip_average and again.dtype == torch.bfloat16
    assert AutoModel.from_pretrained(delta.parent, subfolder=delta.name).dtype == torch.float32
    loaded, processor = load_landmark_model(delta)
    assert loaded.dtype == torch.float32 and loaded.name_or_path == str(delta) and processor.size.height == 32
    frozen = {name for name, value in loaded.named_parameters() if not value.requires_grad}
    assert frozen == {name for name, _ in loaded.named_parameters() if name.startswith("autoencoder.")}


def test_a_delta_is_smaller_and_saved_again_it_is_whole(taught, autoencoder, tmp_path):
    folder = save_delta(*taught[:2], tmp_path / "delta", str(autoencoder), rank=1)
    whole = (taught[2] / "model.safetensors").stat().st_size
    assert (folder / DELTA_NAME).stat().st_size < 0.4 * whole
    loaded = load_landmark_model(folder)[0]
    loaded.save_pretrained(tmp_path / "whole")
    assert (tmp_path / "whole" / "model.safetensors").is_file() and not (tmp_path / "whole" / DELTA_NAME).exists()
    with torch.no_grad():
        again = AutoModel.from_pretrained(tmp_path / "whole").eval()(crops(2)).heatmaps
        torch.testing.assert_close(again, loaded(crops(2)).heatmaps)


def test_transfer_layers_alone_take_nothing_of_the_autoencoder(taught, autoencoder, tmp_path):
    model, processor, _ = taught
    untaught = type(model)(model.config)
    untaught.autoencoder.load_state_dict(load_autoencoder(autoencoder).state_dict())
    folder = save_delta(untaught, processor, tmp_path / "delta", str(autoencoder))
    assert not any(name.startswith("autoencoder.") for name in load_file(folder / DELTA_NAME))
    loaded = load_landmark_model(folder)[0].state_dict()
    assert all(
        torch.equal(loaded[name], value.half().float())
        for name, value in untaught.state_dict().items()
        if not name.startswith("autoencoder.") and value.is_floating_point()
    )


def test_the_autoencoder_must_be_the_one_it_was_taught_on(taught, delta, autoencoder, tmp_path):
    other = save_autoencoder(tmp_path / "other", seed=5)
    with pytest.raises(CheckpointError, match="was taught on another autoencoder: autoencoder.decoder"):
        save_delta(*taught[:2], tmp_path / "refused", str(other))
    assert not (tmp_path / "refused").exists()
    sha = "0" * 64
    rewrite(delta, metadata={"autoencoder": str(autoencoder), "autoencoder_sha256": sha})
    with pytest.raises(CheckpointError, match="was taught on another autoencoder than .* is now"):
        load_landmark_model(delta)


def damages():
    def columns(tensors):
        return tensors[f"{CONVOLUTION}.delta_columns"]

    def drop_rows(tensors):
        del tensors[f"{CONVOLUTION}.delta_rows"]

    def drop_columns(tensors):
        del tensors[f"{CONVOLUTION}.delta_columns"]

    def deepen_rows(tensors):
        tensors[f"{CONVOLUTION}.delta_rows"] = tensors[f"{CONVOLUTION}.delta_rows"][None].clone()

    def change_a_number(tensors):
        for half in ("columns", "rows"):
            tensors[f"autoencoder.encoder.bn1.num_batches_tracked.delta_{half}"] = torch.ones(1, 1)

    def claim_gigabytes(tensors):
        tensors[f"{CONVOLUTION}.delta_columns"] = torch.zeros(len(columns(tensors)), 0)
        tensors[f"{CONVOLUTION}.delta_rows"] = torch.zeros(0, 10**12)

    def add_unknown(tensors):
        tensors["autoencoder.encoder.none.weight"] = torch.ones(1)

    def widen_norm(tensors):
        tensors["autoencoder.encoder.bn1.weight"] = torch.ones(9)

    def cut_columns(tensors):
        tensors[f"{CONVOLUTION}.delta_columns"] = columns(tensors)[:-1].clone()

    def widen_rows(tensors):
        tensors[f"{CONVOLUTION}.delta_rows"] = torch.ones(columns(tensors).shape[1], 5, dtype=torch.float16)

    def rename(tensors):
        tensors["autoencoder.encoder.none.weight.delta_columns"] = columns(tensors).clone()

    def drop_head(tensors):
        del tensors["heatmap_head.weight"]

    def widen_head(tensors):
        tensors["heatmap_head.weight"] = torch.ones(4, 6, 4, 4, dtype=torch.float16)

    return [function for name, function in locals().items() if name != "columns"]


@pytest.mark.parametrize("damage", damages(), ids=lambda damage: damage.__name__)
def test_what_does_not_fit_is_refused_in_one_line(delta, damage):
    rewrite(delta, damage)
    refused(delta)


@pytest.mark.parametrize("size", [0, 7, 200])
def test_a_damaged_file_is_refused_in_one_line(delta, size):
    file = delta / DELTA_NAME
    file.write_bytes(file.read_bytes()[:size])
    refused(delta)


@fuzz(0.1)
@given(**DAMAGE)
def test_any_change_of_the_header_loads_or_is_refused(taught, autoencoder, tmp_path_factory, changes, cut):
    folder = tmp_path_factory.getbasetemp() / "fuzzed-delta"
    if not folder.exists():
        save_delta(*taught[:2], folder, str(autoencoder), rank=2)
        (folder / DELTA_NAME).rename(folder / "original")
    loads_or_is_refused(folder, DELTA_NAME, (folder / "original").read_bytes(), 2000, changes, cut)


@pytest.mark.parametrize("name", ["3fabrec-300w-10shot", "itself"])
def test_a_delta_that_is_for_a_delta_is_refused(delta, name):
    name = str(delta) if name == "itself" else name
    rewrite(delta, metadata={"autoencoder": name, "autoencoder_sha256": "0"})
    with pytest.raises(CheckpointError, match="which is one, too"):
        load_landmark_model(delta)


def test_a_delta_says_which_autoencoder_it_is_for(taught, delta, autoencoder, tmp_path, monkeypatch):
    with pytest.raises(CheckpointError, match="is itself kept as a delta"):
        save_delta(*taught[:2], tmp_path / "refused", str(delta))
    assert not (tmp_path / "refused").exists()
    monkeypatch.chdir(autoencoder.parent)
    save_delta(*taught[:2], tmp_path / "relative", autoencoder.name)
    monkeypatch.chdir(tmp_path)  # a folder is found from anywhere
    assert load_landmark_model("relative")[0].config.num_landmarks == 5
    rewrite(delta, metadata={"autoencoder": str(tmp_path / "gone"), "autoencoder_sha256": "0"})
    with pytest.raises(CheckpointError, match="gone, which is not there any more"):
        load_landmark_model(delta)
    rewrite(delta, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="does not say which autoencoder"):
        load_landmark_model(delta)


def test_whole_weights_go_before_a_delta(taught, delta):
    model, _, _ = taught
    other = type(model)(model.config)
    other.save_pretrained(delta)
    assert torch.equal(load_landmark_model(delta)[0].heatmap_head.weight, other.heatmap_head.weight)
    with gather(delta, "faces/both") as contents:
        published = load_file(contents.revisions["main"]["model.safetensors"])
    assert torch.equal(published["heatmap_head.weight"], other.heatmap_head.weight)


def test_how_to_fetch_goes_on_to_the_autoencoder(delta, monkeypatch):
    asked = []
    load = FabRecAutoencoder.from_pretrained.__func__

    def spy(cls, name, *args, **kwargs):
        asked.append(kwargs)
        return load(cls, name, *args, **kwargs)

    monkeypatch.setattr(FabRecAutoencoder, "from_pretrained", classmethod(spy))
    AutoModel.from_pretrained(delta, local_files_only=True, cache_dir=str(delta))
    assert asked == [{"dtype": torch.float32, "local_files_only": True, "cache_dir": str(delta)}]


def test_a_delta_in_the_current_folder_is_nothing_to_a_model_without_a_name(taught, delta, monkeypatch):
    monkeypatch.chdir(delta)
    model = taught[0]
    other = type(model)(model.config)
    loaded = type(model).from_pretrained(None, config=model.config, state_dict=other.state_dict())
    assert torch.equal(loaded.heatmap_head.weight, other.heatmap_head.weight)


def test_weights_beyond_numbers_are_refused(taught, autoencoder, tmp_path):
    model, processor, _ = taught
    broken = type(model)(model.config)
    broken.load_state_dict(model.state_dict())
    with torch.no_grad():
        broken.autoencoder.encoder.conv1.weight[0] = float("nan")
    with pytest.raises(CheckpointError, match="autoencoder.encoder.conv1.weight does not fit into 16 bits"):
        save_delta(broken, processor, tmp_path / "out", str(autoencoder))
    assert not (tmp_path / "out").exists()


def test_a_whole_checkpoint_is_not_covered_by_a_delta(taught, autoencoder, labeled, capsys):
    model, processor, folder = taught
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    words = ["export", "--model", folder, "--format", "delta", "--autoencoder", autoencoder, "--output", folder]
    fails_with(capsys, words, "holds a whole checkpoint")
    fails_with(capsys, [*words, "--data", labeled], "holds a whole checkpoint")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    with pytest.raises(CheckpointError, match="holds a whole checkpoint"):
        save_delta(model, processor, folder, str(autoencoder))
    assert not (folder / DELTA_NAME).exists()
    with pytest.raises(ValueError, match="rank"):
        save_delta(model, processor, folder / "new", str(autoencoder), rank=0)


def test_the_command_writes_and_scores_it(taught, autoencoder, labeled, tmp_path, capsys):
    words = ["export", "--model", taught[2], "--format", "delta", "--autoencoder", autoencoder, "--rank", "99"]
    words += ["--data", labeled, "--max-growth", "50", "--output", tmp_path / "out", "--json"]
    assert main([str(word) for word in words]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["files"] == [str(tmp_path / "out" / DELTA_NAME)]
    assert report["bytes"] == (tmp_path / "out" / DELTA_NAME).stat().st_size
    assert report["faces"] == 6 and report["nme_delta"] == pytest.approx(report["nme"], rel=0.2)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "config.json",
        DELTA_NAME,
        "preprocessor_config.json",
    ]


def test_the_command_refuses_what_costs_too_much(taught, autoencoder, labeled, tmp_path, capsys, monkeypatch):
    errors = iter([5.0, 5.06])
    monkeypatch.setattr("fabrec_hf.metrics.normalized_mean_error", lambda *_: np.array([next(errors)]))
    words = ["export", "--model", taught[2], "--format", "delta", "--autoencoder", autoencoder]
    words = [str(word) for word in [*words, "--output", tmp_path / "out"]]
    assert main([*words, "--data", str(labeled)]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "rank 32 raises the error from 5.000 to 5.060 %" in error and "give a larger --rank" in error
    fails_with(capsys, [*words, "--int8"], "--int8 is for graphs")
    fails_with(capsys, [*words, "--rank", "0"], "--rank must be at least 1")
    assert not (tmp_path / "out").exists()


def test_a_delta_is_published_whole(delta, taught):
    with gather(delta, "faces/small") as contents:
        files = contents.revisions["main"]
        assert DELTA_NAME not in files
        published = load_file(files["model.safetensors"])
        assert set(published) == set(taught[0].state_dict())
        for name, value in load_landmark_model(delta)[0].state_dict().items():
            assert torch.equal(published[name], value)
