"""A closer look at every point, by the encoder's own maps around it."""

import numpy as np
import pytest
import torch

from fabrec_hf import FabRecForLandmarkDetection, get_scheme
from fabrec_hf.inference.dataset_prediction import apply_protocol
from fabrec_hf.model.local_refinement import LARGEST_MOVE, LocalRefinement, local_maps, look_around
from support.tiny_models import pictures, random_statistics, tiny_model


SCHEME = get_scheme("mtfl")
# In x what two maps of one channel show at the point itself, in y what the first shows to its right.
GAIN = torch.zeros(10, 2)
GAIN[0, 0] = GAIN[5, 0] = GAIN[1, 1] = 1.0


def ramp(side, slope=1.0):
    """A map whose value is the place in x, as a fraction of the map, times a slope."""
    row = (torch.arange(side) + 0.5) / side * slope
    return row.expand(1, 1, side, side)


def closer(gain_seed=0, **settings):
    """A tiny detector that looks closer, with moves of its own."""
    model = random_statistics(tiny_model(landmark_scheme=SCHEME.to_dict(), local_refinement=True, **settings)).eval()
    generator = torch.Generator().manual_seed(gain_seed)
    refinement = model.local_refinement
    refinement.gain.copy_(0.02 * torch.randn(refinement.gain.shape, generator=generator))
    refinement.flip_index.copy_(torch.tensor(SCHEME.flip_index))
    return model


def test_maps_are_read_at_the_point_and_six_tenths_of_a_cell_around_it():
    seen = look_around(torch.tensor([[[0.5, 0.5], [0.25, 0.75]]]), [ramp(10), ramp(20, slope=2.0)])
    # A cell of the first map is a tenth, of the second a twentieth; right, left, below, above.
    expected = [[0.5, 0.56, 0.44, 0.5, 0.5, 1.0, 1.06, 0.94, 1.0, 1.0], [0.25, 0.31, 0.19, 0.25, 0.25]]
    np.testing.assert_allclose(seen[0, 0], expected[0], atol=1e-6)
    np.testing.assert_allclose(seen[0, 1, :5], expected[1], atol=1e-6)


def test_moves_are_linear_in_what_is_seen_and_no_longer_than_the_largest():
    refinement = LocalRefinement(2, [1, 1])
    points = torch.tensor([[[0.5, 0.5], [0.25, 0.75]]])
    maps = [ramp(10, slope=0.05), ramp(20, slope=0.02)]
    assert torch.equal(refinement(points, maps), points)  # a new one moves nothing
    refinement.gain.copy_(GAIN.expand(2, -1, -1))
    refinement.bias.copy_(torch.tensor([[0.001, 0.0], [0.0, -0.002]]))
    expected = points + torch.tensor([[[0.036, 0.028], [0.0175, 0.0135]]])
    torch.testing.assert_close(refinement(points, maps), expected)
    far = refinement(points, [10 * values for values in maps])
    torch.testing.assert_close(far - points, torch.full((1, 2, 2), LARGEST_MOVE))


def test_the_mirrored_crop_moves_the_points_that_change_places():
    refinement = LocalRefinement(2, [1, 1])
    refinement.gain.copy_(GAIN.expand(2, -1, -1))
    refinement.flip_index.copy_(torch.tensor([1, 0]))
    points = torch.tensor([[[0.3, 0.5], [0.8, 0.4]]])
    still = [torch.zeros(1, 1, 10, 10)] * 2
    # In the mirrored crop the second point lies at 0.2 and the first at 0.7. It counts half, and to the left.
    moved = refinement(points, still, [ramp(10, slope=0.05), still[1]])
    expected = points + 0.5 * torch.tensor([[[-0.035, 0.038], [-0.01, 0.013]]])
    torch.testing.assert_close(moved, expected)


def test_maps_of_8_to_48_cells_are_looked_at():
    sides = [channels.shape[-1] for channels in local_maps([torch.zeros(1, 2, side, side) for side in (96, 48, 8, 4)])]
    assert sides == [48, 8]
    model = closer()
    # 64 px: the stages end in maps of 16, 8, 4 and 2 cells, of 8 channels each.
    assert [tuple(values.shape[1:]) for values in model.local_maps(pictures())] == [(8, 16, 16), (8, 8, 8)]
    assert model.local_refinement.gain.shape == (5, 5 * 16, 2)


def test_it_comes_last_and_changes_no_heatmap():
    model = closer()
    outputs = model(pictures())
    maps, refinement = model.local_maps(pictures()), model.local_refinement
    model.local_refinement = None
    plain = model(pictures())
    torch.testing.assert_close(outputs.landmarks, refinement(plain.landmarks, maps))
    assert torch.equal(outputs.heatmaps, plain.heatmaps) and torch.equal(outputs.drawn, plain.drawn)
    assert float((outputs.landmarks - plain.landmarks).detach().abs().max()) > 1e-3


def test_a_mirrored_picture_has_mirrored_landmarks():
    model = closer(flip_average=True)
    found, mirrored = model(pictures()).landmarks, model(pictures().flip(-1)).landmarks
    expected = mirrored[:, SCHEME.flip_index] * torch.tensor([-1.0, 1.0]) + torch.tensor([1.0, 0.0])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("settings", [{}, {"flip_average": True}, {"backbone": "face_mesh"}], ids=str)
def test_the_fused_twin_finds_the_same_points(settings):
    model = closer(**settings)
    torch.testing.assert_close(model.fuse()(pictures()).landmarks, model(pictures()).landmarks, atol=1e-5, rtol=0)


def test_it_is_saved_and_the_papers_protocol_does_without(tmp_path):
    model = closer()
    model.save_pretrained(tmp_path)
    loaded = FabRecForLandmarkDetection.from_pretrained(tmp_path)
    torch.testing.assert_close(loaded(pictures()).landmarks, model(pictures()).landmarks)
    twin = apply_protocol(model, SCHEME, "paper", flip_average=None)
    assert twin.local_refinement is None and not twin.config.local_refinement
    assert model.local_refinement is not None
    half = closer().half()
    assert half(pictures().half()).landmarks.isfinite().all()
