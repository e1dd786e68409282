"""Encoders other than the paper's, and maps that keep positions apart."""

import pytest
import torch
from huggingface_hub.errors import StrictDataclassError

from fabrec_hf import FabRecAutoencoder, FabRecAutoencoderConfig, FabRecForLandmarkDetection
from fabrec_hf.model.backbones_fabrec import FaceMeshBackbone, TimmBackbone
from fabrec_hf.model.image_inputs import IMAGE_MEAN
from support.tiny_models import TINY, pictures, tiny_model


def autoencoder(**kwargs):
    torch.manual_seed(0)
    return FabRecAutoencoder(FabRecAutoencoderConfig(**(TINY | kwargs))).eval()


def test_the_default_is_the_papers_encoder():
    counts = {"paper": FabRecAutoencoderConfig(), "128 px": FabRecAutoencoderConfig(image_size=128)}
    encoders = {name: FabRecAutoencoder(config).encoder for name, config in counts.items()}
    parameters = {name: sum(p.numel() for p in encoder.parameters()) for name, encoder in encoders.items()}
    assert parameters == {"paper": 11_379_491, "128 px": 11_227_299}


def test_a_flattened_layer_can_start_as_the_average():
    average, flat = autoencoder(), autoencoder(encoder_pooling="flatten")
    weights = average.state_dict()
    weights["encoder.fc.weight"] = weights["encoder.fc.weight"].repeat_interleave(4, dim=1) / 4
    flat.load_state_dict(weights)
    torch.testing.assert_close(flat.encode(pictures()), average.encode(pictures()))
    assert autoencoder(image_size=256, encoder_pooling="flatten").encode(pictures(size=256)).shape == (2, 8)
    with pytest.raises(StrictDataclassError, match="encoder_pooling"):
        FabRecAutoencoderConfig(encoder_pooling="max")


def test_the_face_mesh_trunk_has_the_published_shape():
    backbone = FaceMeshBackbone()
    shapes = [tuple(values.shape) for values in backbone(torch.rand(2, 3, 192, 192))]
    assert shapes == [(2, channels, side, side) for channels, side in backbone.map_sizes]
    assert shapes[0] == (2, 16, 96, 96) and shapes[-1] == (2, 128, 3, 3)
    # By hand: stem 16 * 27 + 16 + 16; a block 10 C_in of depthwise, C_out (C_in + 1) of pointwise, C_out of slopes.
    blocks = (
        [(16, 16)] * 2 + [(16, 32)] + [(32, 32)] * 2 + [(32, 64)] + [(64, 64)] * 2 + [(64, 128)] + [(128, 128)] * 8
    )
    expected = 464 + sum(10 * a + b * (a + 1) + b for a, b in blocks)
    assert sum(parameter.numel() for parameter in backbone.parameters()) == expected


def test_a_stride_of_two_pads_below_and_to_the_right():
    block = FaceMeshBackbone().blocks[2]
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.zero_()
        block.depthwise.weight[0, 0, 2, 2] = 1.0  # looks two pixels down and to the right
        block.pointwise.weight[0, 0] = 1.0
        maps = torch.zeros(1, 16, 4, 4)
        maps[0, 0, 2, 2] = 1.0
        found = block(maps)[0, 0]
    # The pixel (2, 2) is seen from (0, 0), and its shortcut, the pooled map, from (1, 1).
    assert found.tolist() == [[1.0, 0.0], [0.0, 1.0]]


@pytest.mark.parametrize("backbone", ["face_mesh", "resnet18", "tf_efficientnet_lite0:16"])
def test_a_detector_with_another_backbone_saves_and_fuses(backbone, tmp_path):
    model = tiny_model(backbone=backbone, encoder_pooling="flatten")
    sizes = [values.shape[1:3] for values in model.autoencoder.encoder.maps(pictures())]
    assert [tuple(size) for size in sizes] == list(model.autoencoder.encoder.map_sizes)
    found = model(pictures()).heatmaps
    torch.testing.assert_close(model.fuse()(pictures()).heatmaps, found, atol=1e-4, rtol=1e-3)
    model.save_pretrained(tmp_path)
    torch.testing.assert_close(FabRecForLandmarkDetection.from_pretrained(tmp_path)(pictures()).heatmaps, found)


def test_timm_sees_pictures_as_it_learned_them():
    model = autoencoder(backbone="resnet18", encoder_pooling="average")
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    images = pictures() + torch.tensor(IMAGE_MEAN)[:, None, None]
    maps = model.encoder.backbone.network((images - mean[:, None, None]) / std[:, None, None])[-1]
    torch.testing.assert_close(model.encode(pictures()), model.encoder.fc(maps.mean(dim=(2, 3))))


def test_what_timm_does_not_know_is_named():
    with pytest.raises(ValueError, match="no_such_net"):
        TimmBackbone("no_such_net", 64)
    with pytest.raises(ValueError, match="stride"):
        TimmBackbone("resnet18:7", 64)
