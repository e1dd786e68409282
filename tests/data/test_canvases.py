"""Canvases: parts of them stay what the whole is."""

import torch

from fabrec_hf.data.canvases import Canvases


def test_parts_have_their_rows_and_the_fraction_of_the_whole():
    pixels = torch.arange(5 * 3 * 2 * 2, dtype=torch.uint8).view(5, 3, 2, 2)
    whole = Canvases(pixels, 0.5)
    assert len(whole) == 5 and whole.device == torch.device("cpu")
    for rows in ([3, 0], torch.tensor([3, 0]), torch.tensor([3, 0]).numpy()):
        part = whole.subset(rows)
        assert torch.equal(part.pixels, torch.stack([pixels[3], pixels[0]])) and part.crop_fraction == 0.5
    first = whole.subset(slice(2))
    assert torch.equal(first.pixels, pixels[:2])
    parts = list(whole.split(2))
    assert [len(part) for part in parts] == [2, 2, 1] and {part.crop_fraction for part in parts} == {0.5}
    assert torch.equal(torch.cat([part.pixels for part in parts]), pixels)
    moved = whole.to(torch.device("meta"))
    assert moved.device.type == "meta" and moved.crop_fraction == 0.5 and moved.pixels.shape == pixels.shape


def test_without_a_margin_the_crop_is_all():
    assert Canvases(torch.zeros(1, 3, 2, 2, dtype=torch.uint8)).crop_fraction == 1
