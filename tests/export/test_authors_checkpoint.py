"""The converter against recorded outputs of the authors' own network."""

import json
import math
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoImageProcessor, AutoModel

import fabrec_hf
from fabrec_hf.errors import CheckpointError
from fabrec_hf.export.authors_checkpoint import convert, convert_state_dict
from fabrec_hf.learning.discriminators import FabRecDiscriminators


REFERENCE = Path(__file__).parents[1] / "reference"
SHARED = Path(__file__).parents[3] / "shared" / "reference"
LAYOUTS = json.loads((REFERENCE / "layouts.json").read_text())


def rule_tensor(name, shape):
    """Hash noise in [-1, 1) seeded by the name, scaled so that activations keep their size."""
    if name.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    phase = sum(name.encode()) % 997
    hashed = torch.sin(torch.arange(math.prod(shape), dtype=torch.float64) * 12.9898 + phase * 78.233) * 43758.5453
    noise = 2 * (hashed - hashed.floor()) - 1
    if name.endswith("running_var"):
        values = 1 + 0.25 * noise
    elif name.endswith("running_mean") or (len(shape) == 1 and not name.endswith("weight")):
        values = 0.05 * noise
    elif len(shape) == 1:
        values = 1 + 0.1 * noise
    else:
        transposed = len(shape) == 4 and shape[2] == 4 and not name.startswith("D.")
        values = noise * math.sqrt(3.5 / (shape[0] * 4 if transposed else math.prod(shape[1:])))
    return values.float().reshape(shape)


def rule_pictures(size):
    """The two pictures of the recording, (2, 3, size, size), mean subtracted."""
    x = torch.linspace(0, 1, size)
    picture, channel = torch.arange(2.0).view(2, 1, 1, 1), torch.arange(3.0).view(1, 3, 1, 1)
    waves_x, waves_y = torch.tensor([[1.0, 3, 2], [2, 1, 2]]).view(2, 1, 3, 1, 1)
    values = 0.5 + 0.4 * torch.sin(6.2832 * (waves_x * x + waves_y * x[:, None]) + (picture + channel))
    return values - torch.tensor([0.518, 0.418, 0.361]).view(3, 1, 1)


def published_state_dict(layout):
    return {name: rule_tensor(name, shape) for name, shape in layout.items()}


def tiny_published(case="landmarks68_128", networks=("Q", "P", "LMH")):
    """A published state dict a sixteenth as wide, without the discriminators: their width is fixed."""
    narrow = {512: 32, 256: 16, 128: 8, 64: 4}
    layout = {name: shape for name, shape in LAYOUTS[case].items() if name.split(".")[0] in networks}
    return published_state_dict({name: [narrow.get(n, n) for n in shape] for name, shape in layout.items()})


def save_published(state_dict, folder):
    path = folder / "saae.mdl"
    torch.save({"arch": "resnet18", "z_dim": 99, "input_size": 128, "state_dict": state_dict}, path)
    return path


def relative_error(actual, expected):
    return float((actual - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("case", sorted(LAYOUTS))
def test_converted_network_answers_as_the_authors_network(case):
    config, state, discriminator_state = convert_state_dict(published_state_dict(LAYOUTS[case]))
    model = fabrec_hf.FabRecForLandmarkDetection(config).eval()
    model.load_state_dict(state)
    discriminators = FabRecDiscriminators(config).eval()
    discriminators.load_state_dict(discriminator_state)

    recorded = load_file(REFERENCE / "expected.safetensors")
    expected = {key.removeprefix(case + "."): value for key, value in recorded.items() if key.startswith(case)}
    pixel_values = rule_pictures(config.image_size)
    with torch.no_grad():
        outputs = model(pixel_values, output_reconstruction=True)
        image_verdict = torch.sigmoid(discriminators.image(pixel_values))
        latent_verdict = torch.sigmoid(discriminators.latent(outputs.latent))

    assert relative_error(outputs.latent, expected["latent"]) < 1e-4
    assert relative_error(outputs.reconstruction[..., ::16, ::16], expected["reconstruction"]) < 1e-4
    assert relative_error(outputs.heatmaps[..., ::16, ::16], expected["heatmaps"]) < 1e-4
    assert relative_error(image_verdict, expected["image_discriminator"]) < 1e-4
    assert relative_error(latent_verdict, expected["latent_discriminator"]) < 1e-4
    in_crop_pixels = outputs.landmarks * config.image_size - 0.5
    torch.testing.assert_close(in_crop_pixels, expected["landmarks_in_crop_pixels"], atol=1e-3, rtol=0)

    full = SHARED / f"expected_{case}.safetensors"
    if full.is_file():  # the slices above are cut from these
        expected = load_file(full)
        torch.testing.assert_close(pixel_values, expected["pixel_values"], atol=2e-7, rtol=0)
        assert relative_error(outputs.reconstruction[..., ::4, ::4], expected["reconstruction"]) < 1e-4
        assert relative_error(outputs.heatmaps[..., ::4, ::4], expected["heatmaps"]) < 1e-4


@pytest.mark.parametrize(
    ("case", "image_size", "scheme"),
    [("landmarks68_128", 128, "300w"), ("landmarks68_256", 256, "300w"), ("landmarks98_256", 256, "wflw")],
)
def test_configuration_is_read_off_the_tensors(case, image_size, scheme):
    config, _, discriminator_state = convert_state_dict(tiny_published(case))
    assert isinstance(config, fabrec_hf.FabRecConfig)
    assert (config.image_size, config.latent_size, list(config.widths)) == (image_size, 99, [4, 8, 16, 32])
    assert (config.num_landmarks, config.landmark_scheme["name"]) == (int(case[9:11]), scheme)
    assert (config.heatmap_size, config.heatmap_sigma) == (128, 7.0)
    assert (config.decoding, config.heatmap_alignment) == ("argmax", "indices")
    assert discriminator_state is None


def test_file_to_folder_that_the_auto_classes_load(tmp_path):
    published = tiny_published("landmarks98_256")
    published |= published_state_dict({k: s for k, s in LAYOUTS["landmarks98_256"].items() if k.startswith("D")})
    output = tmp_path / "deep" / "converted"
    assert convert(save_published(published, tmp_path), output) == output
    assert sorted(path.name for path in output.parent.iterdir()) == ["converted"]

    model = AutoModel.from_pretrained(output)
    assert isinstance(model, fabrec_hf.FabRecForLandmarkDetection)
    torch.testing.assert_close(model.heatmap_head.weight, published["LMH.lin.weight"], atol=0, rtol=0)
    torch.testing.assert_close(
        model.autoencoder.encoder.stages[1][0].conv1.weight, published["Q.layer1.0.conv1.weight"], atol=0, rtol=0
    )
    processor = AutoImageProcessor.from_pretrained(output)
    assert (processor.size["height"], processor.size["width"]) == (256, 256)
    assert (processor.extend_top, processor.extend_bottom) == (0.0, 0.10)
    assert list(processor.image_mean) == [0.518, 0.418, 0.361]
    discriminators = FabRecDiscriminators.from_pretrained(output / "discriminators")
    torch.testing.assert_close(discriminators.image.layers[14].weight, published["D.main.14.weight"], atol=0, rtol=0)
    torch.testing.assert_close(discriminators.latent.layers[6].bias, published["D_z.lin3.bias"], atol=0, rtol=0)


def test_checkpoint_without_a_head_becomes_an_autoencoder(tmp_path):
    published = tiny_published(networks=("Q", "P"))
    output = convert(save_published(published, tmp_path), tmp_path / "converted")
    model = AutoModel.from_pretrained(output)
    assert isinstance(model, fabrec_hf.FabRecAutoencoder)
    torch.testing.assert_close(model.decoder.to_rgb.weight, published["P.lin.weight"], atol=0, rtol=0)
    assert not (output / "discriminators").exists()


def test_an_odd_number_of_landmarks_has_no_scheme():
    published = tiny_published()
    published["LMH.lin.weight"] = torch.zeros(4, 23, 4, 4)
    config, _, _ = convert_state_dict(published)
    assert (config.num_landmarks, config.landmark_scheme) == (23, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("P.layer2.0.bn1.running_mean"), r"lacks .*decoder\.stages\.1\.bn1\.running_mean"),
        (lambda state: state.pop("LMH.t2.weight"), r"lacks .*transfer_layers\.1\.weight"),
        (lambda state: state.update({"X.weight": torch.zeros(1)}), r"no use here: X\.weight"),
        (lambda state: state.update({"P.layer9.0.bn1.bias": torch.zeros(4)}), r"no use here.*stages\.8\.bn1\.bias"),
        (lambda state: state.update({"Q.conv1.weight": torch.zeros(4, 1, 7, 7)}), r"encoder\.conv1\.weight \(4, 1"),
        (lambda state: state.pop("Q.fc.weight"), r"no encoder tensor 'Q\.fc\.weight'"),
        (lambda state: state.update({"D_z.lin1.bias": torch.zeros(1000)}), r"lacks .*image\.layers\.0\.weight"),
    ],
)
def test_every_tensor_is_used_and_every_parameter_filled(change, message):
    published = tiny_published()
    change(published)
    with pytest.raises(CheckpointError, match=message) as raised:
        convert_state_dict(published)
    assert "\n" not in str(raised.value)


class Exploit:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_code_in_a_pickle_is_refused_and_not_run(tmp_path):
    path = tmp_path / "saae.mdl"
    torch.save({"state_dict": {"Q.conv1.weight": Exploit(tmp_path / "owned")}}, path)
    with pytest.raises(CheckpointError, match="does not load as a file of tensors") as raised:
        convert(path, tmp_path / "converted")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "owned").exists() and not (tmp_path / "converted").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"this is no pickle", "does not load"),
        (b"", "does not load"),
        ({"weights": {}}, 'no "state_dict"'),
        (torch.zeros(3), 'no "state_dict"'),
        ({"state_dict": {"Q.conv1.weight": 3}}, "something else than named tensors"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    path = tmp_path / "saae.mdl"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(CheckpointError, match=message) as raised:
        convert(path, tmp_path / "converted")
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "converted").exists()


def test_missing_file_and_folder_for_a_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        convert(tmp_path / "saae.mdl", tmp_path / "converted")
    with pytest.raises(CheckpointError, match="a folder: name the saae.mdl"):
        convert(tmp_path, tmp_path / "converted")


def test_a_folder_in_use_is_left_alone(tmp_path):
    path = save_published(tiny_published(), tmp_path)
    output = tmp_path / "used"
    output.mkdir()
    convert(path, output)  # empty: welcome
    before = sorted(output.iterdir())
    with pytest.raises(CheckpointError, match="not empty"):
        convert(path, output)
    assert sorted(output.iterdir()) == before


def test_a_failure_while_writing_leaves_nothing(tmp_path, monkeypatch):
    path = save_published(tiny_published(), tmp_path)

    def fail(self, folder, **kwargs):
        raise OSError("no space left on device")

    monkeypatch.setattr(fabrec_hf.FabRecImageProcessor, "save_pretrained", fail)
    with pytest.raises(OSError, match="no space"):
        convert(path, tmp_path / "converted")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["saae.mdl"]
