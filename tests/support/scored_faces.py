"""Faces of noise with points and boxes, as what is scored reads them."""

import datasets
import numpy as np


def make_dataset(images, landmarks, boxes) -> datasets.Dataset:
    """Put pictures, landmarks (N, L, 2) and boxes (N, 4) into a data set."""
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "landmarks": datasets.List(datasets.List(datasets.Value("float64"))),
            "box": datasets.List(datasets.Value("float64"), length=4),
        }
    )
    rows = {"image": images, "landmarks": np.asarray(landmarks).tolist(), "box": np.asarray(boxes).tolist()}
    return datasets.Dataset.from_dict(rows, features=features)
