"""Layers rewritten for ONNX Runtime: the same numbers, and none of the slow operators left."""

import numpy as np
import pytest
import torch
from torch import nn

from fabrec_hf import FabRecImageProcessor, get_scheme
from fabrec_hf.export.quick_onnx import SplitPReLU, gather_around, rewrite_for_onnx_runtime
from fabrec_hf.export.runtime_files import export_model
from fabrec_hf.export.runtimes import load_exported
from fabrec_hf.model.local_refinement import look_around
from support.tiny_models import pictures, tiny_model


def mesh_model():
    """A tiny detector with the trunk that has PReLU layers, each with slopes of its own, and a closer look."""
    scheme = get_scheme("mtfl")
    model = tiny_model(backbone="face_mesh", landmark_scheme=scheme.to_dict(), local_refinement=True)
    generator = torch.Generator().manual_seed(3)
    for module in model.modules():
        if isinstance(module, nn.PReLU):
            module.weight.data.uniform_(-0.5, 0.8, generator=generator)
    model.local_refinement.gain.copy_(0.02 * torch.randn(model.local_refinement.gain.shape, generator=generator))
    model.local_refinement.flip_index.copy_(torch.tensor(scheme.flip_index))
    return model


def kinds(module):
    return [type(part) for part in module.modules()]


def test_a_split_prelu_is_a_prelu():
    activation = nn.PReLU(2)
    activation.weight.data = torch.tensor([0.25, -0.5])
    values = torch.tensor([-4.0, 0.0, 2.0]).expand(1, 2, 1, 3)
    expected = torch.tensor([[-1.0, 0.0, 2.0], [2.0, 0.0, 2.0]])  # by hand: below 0 times the slope
    assert torch.equal(SplitPReLU(activation)(values)[0, :, 0], expected)


def test_rows_show_what_a_grid_sample_shows_also_beyond_the_border():
    generator = torch.Generator().manual_seed(0)
    maps = [torch.randn(3, channels, side, side, generator=generator) for channels, side in ((4, 12), (2, 24), (3, 9))]
    points = 1.6 * torch.rand(3, 20, 2, generator=generator) - 0.3
    points[0, :4] = torch.tensor([[0.0, 0.0], [1.0, 1.0], [1 / 24, 0.5], [0.999999, 0.0]])
    assert ((points < 0) | (points > 1)).sum() > 20
    torch.testing.assert_close(gather_around(points, maps), look_around(points, maps), atol=1e-5, rtol=0)


def test_the_twin_finds_the_same_and_keeps_whole_prelus_for_8_bits():
    model = mesh_model()
    with torch.no_grad():
        expected = model(pictures())
    quick, small = model.fuse(), model.fuse()
    rewrite_for_onnx_runtime(quick)
    rewrite_for_onnx_runtime(small, quantized=True)
    assert nn.PReLU not in kinds(quick) and kinds(quick).count(SplitPReLU) == kinds(small).count(nn.PReLU) > 10
    assert quick.local_refinement.look_around is small.local_refinement.look_around is gather_around
    for twin in (quick, small):
        torch.testing.assert_close(twin(pictures()).landmarks, expected.landmarks, atol=2e-5, rtol=0)
    assert nn.PReLU in kinds(model) and model.local_refinement.look_around is look_around  # the model is as it was


def test_a_graph_has_no_slow_operators_and_finds_the_points(tmp_path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    model = mesh_model()
    export_model(model, FabRecImageProcessor(size=64), tmp_path / "out")
    operators = {node.op_type for node in onnx.load(tmp_path / "out" / "model.onnx").graph.node}
    assert "Conv" in operators and not operators & {"GridSample", "PRelu"}
    detector, _ = load_exported(tmp_path / "out", threads=1)
    with torch.no_grad():
        expected = model(pictures(3)).landmarks
    np.testing.assert_allclose(detector(pictures(3)).landmarks, expected, atol=2e-5)
