"""Pictures, boxes and the two processor classes that the tests of the image processors share."""

import numpy as np

from fabrec_hf.model.image_processing_fabrec import FabRecImageProcessor
from fabrec_hf.model.image_processing_pil_fabrec import FabRecImageProcessorPil


BACKENDS = [FabRecImageProcessor, FabRecImageProcessorPil]
MEAN = np.array([0.518, 0.418, 0.361], dtype=np.float32)
WIDTH, HEIGHT = 120, 90

# Inside, over each border, over all of them, wholly outside, flat, tall, tiny, large.
BOXES = [
    (30.25, 20.5, 40.0, 40.0),
    (-20.3, 10.0, 60.0, 55.0),
    (20.0, -31.7, 60.0, 55.0),
    (80.0, 10.0, 77.7, 55.0),
    (20.0, 60.0, 60.0, 55.5),
    (-100.0, -80.0, 400.0, 300.0),
    (5000.5, -3000.25, 50.0, 70.0),
    (10.0, 40.0, 100.0, 3.0),
    (60.0, 2.0, 4.0, 80.0),
    (50.1, 40.2, 1.5, 1.25),
    (-9000.0, -9000.0, 20000.0, 20000.0),
]


def noise(width=WIDTH, height=HEIGHT, seed=0):
    """Makes an RGB picture of random pixels, (H, W, 3) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def dot(x, y, width=WIDTH, height=HEIGHT, sigma=2.5):
    """Draws a soft white dot about (x, y), pixel centers at integers, on black: (H, W, 3) float32 in [0, 1]."""
    columns = np.exp(-((np.arange(width) - x) ** 2) / (2 * sigma**2))
    rows = np.exp(-((np.arange(height) - y) ** 2) / (2 * sigma**2))
    return np.repeat((rows[:, None] * columns)[..., None], 3, axis=2).astype(np.float32)


def centroid(pixels):
    """Returns the center of mass of a (3, S, S) crop in [0, 1] of the crop."""
    mass = np.asarray(pixels, dtype=np.float64).mean(axis=0)
    places = (np.arange(mass.shape[0]) + 0.5) / mass.shape[0]
    return np.array([(mass.sum(axis=0) * places).sum(), (mass.sum(axis=1) * places).sum()]) / mass.sum()


def raw_pixels(processor, images, boxes=None, **kwargs):
    """Returns the crops before normalization, 0..255."""
    return processor(images, boxes, do_rescale=False, do_normalize=False, **kwargs)["pixel_values"].numpy()
