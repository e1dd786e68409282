"""How well an autoencoder reconstructs faces: error by face, and by the groups of people that a data set labels."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from ..data.canvases import Canvases
from ..data.decoding import decode_pictures
from ..errors import DataError
from ..learning.augmentation import plain_crops
from ..learning.autoencoder_losses import reconstruction_loss, structural_similarity
from ..model.image_processing_fabrec import FabRecImageProcessor
from ..model.modeling_fabrec import FabRecAutoencoder


if TYPE_CHECKING:
    import datasets


__all__ = [
    "ATTRIBUTES",
    "Group",
    "age_band",
    "bootstrap_interval",
    "canvas_size",
    "find_groups",
    "measure_reconstruction",
    "reconstruction_errors",
]

ATTRIBUTES = ("age", "gender", "race")
"""Columns of people's attributes, in the words of each source."""

MINIMUM_FACES = 20
"""A smaller group's mean says too little about the group to be shown."""

# FairFace's bands, which ages that are given as numbers are put into. The first and the last number of each.
AGE_BANDS = ((0, 2), (3, 9), (10, 19), (20, 29), (30, 39), (40, 49), (50, 59), (60, 69))

RESAMPLES = 2000
# Faces decoded at a time: 160 MB at 160 px.
CHUNK = 2048


def canvas_size(image_size: int) -> int:
    """Return the side at which pictures are held for reconstruction: a quarter more pixels than the crops."""
    return image_size * 5 // 4


@torch.inference_mode()
def reconstruction_errors(
    model: FabRecAutoencoder,
    canvases: Canvases,
    batch_size: int = 64,
    num_stages: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Measure how far each face's reconstruction is from the face.

    Args:
        model: The autoencoder in eval mode, on the device to work on.
        canvases: Of N faces.
        batch_size: Faces at a time; changes the speed only.
        num_stages: Stages of the decoder to use, all by default; the faces are shrunk to what it draws.

    Returns:
        (N,) mean absolute errors in gray levels of 255, and (N,) structural errors, one minus the contrast-structure
        part of SSIM (paper equations 1 to 3).
    """
    size = model.config.image_size
    mean = torch.tensor(FabRecImageProcessor.image_mean, device=model.device).view(1, 3, 1, 1)
    levels, structural = [np.empty(0)], [np.empty(0)]
    for batch in canvases.split(batch_size):
        images = plain_crops(batch.to(model.device), size) - mean
        reconstruction = model(images, num_stages=num_stages).reconstruction
        targets = F.adaptive_avg_pool2d(images, reconstruction.shape[-1])
        losses = [reconstruction_loss(face, target) for face, target in zip(reconstruction, targets, strict=True)]
        levels.append(torch.stack(losses).double().cpu().numpy())
        structural.append((1 - structural_similarity(reconstruction, targets)).double().cpu().numpy())
    return np.concatenate(levels), np.concatenate(structural)


@dataclass(frozen=True)
class Group:
    """Faces that belong together; without a source all of them, without an attribute a whole source.

    Attributes:
        source: The data set that a face was published in.
        attribute: One of `ATTRIBUTES`.
        value: The source's own word for the group, or an age band.
        rows: (n,) integers, which faces belong to it.
    """

    source: str | None
    attribute: str | None
    value: str | None
    rows: np.ndarray


def age_band(label: str) -> str | None:
    """Put an age that is a number into a band of years, such as `"20-29"`; leave a label that is none as it is.

    Returns:
        The band, `"70+"` for the last; the label itself if it is no number; None for a number that is no age.
    """
    try:
        age = float(label)
    except ValueError:
        return label
    if not 0 <= age < 130:
        return None
    return next((f"{first}-{last}" for first, last in AGE_BANDS if age < last + 1), "70+")


def find_groups(dataset: "datasets.Dataset") -> list[Group]:
    """Group faces by source, and within each source by the attributes that it labels.

    Groups are never joined over sources: each has its own words, and its own ways of choosing and cutting pictures.

    Args:
        dataset: Faces; columns `source`, `age`, `gender` and `race` are used where there are any.

    Returns:
        All faces, then each source followed by its groups, in alphabetical order, bands of age by age.
    """
    columns = {name: _labels(dataset, name) for name in ("source", *ATTRIBUTES) if name in dataset.column_names}
    groups = [Group(None, None, None, np.arange(len(dataset)))]
    sources = columns.pop("source", None)
    names = [None] if sources is None else sorted({name for name in sources if name is not None})
    for source in names:
        rows = np.arange(len(dataset)) if source is None else np.flatnonzero(sources == source)
        if source is not None:
            groups.append(Group(source, None, None, rows))
        for attribute, labels in columns.items():
            values = {label for label in labels[rows] if label is not None}
            for value in sorted(values, key=_rank):
                groups.append(Group(source, attribute, value, rows[labels[rows] == value]))
    return groups


def _labels(dataset: "datasets.Dataset", column: str) -> np.ndarray:
    """Return a column as strings, None where a face is not labeled."""
    labels = [None if label is None else str(label).strip() or None for label in dataset[column]]
    if column == "age":
        labels = [None if label is None else age_band(label) for label in labels]
    return np.array(labels, dtype=object)


def _rank(label: str) -> tuple[float, str]:
    """Order bands of age by their first number, and what has no number by the alphabet."""
    found = re.search(r"\d+", label)
    return (float(found[0]) if found else float("inf"), label)


def bootstrap_interval(values: np.ndarray, key: str, seed: int = 0) -> tuple[float, float]:
    """Estimate the 95 % interval of a mean by drawing the faces again with replacement (percentile bootstrap).

    Args:
        values: (n,) one number a face.
        key: What is measured; the same draws serve the same seed and key.
        seed: Which of the possible draws.
    """
    words = int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "big")
    generator = np.random.default_rng([seed, words])
    means: list[np.ndarray] = []
    step = max(1, 1_000_000 // len(values))  # draws at a time, so that memory stays small
    for start in range(0, RESAMPLES, step):
        draws = generator.integers(0, len(values), (min(step, RESAMPLES - start), len(values)))
        means.append(values[draws].mean(axis=1))
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return float(low), float(high)


def measure_reconstruction(
    model: FabRecAutoencoder,
    dataset: "datasets.Dataset",
    seed: int = 0,
    batch_size: int = 64,
    progress: bool = False,
) -> dict[str, Any]:
    """Measure the reconstruction error of faces, by source and by the attributes that a source labels.

    Args:
        model: The autoencoder in eval mode, on the device to work on.
        dataset: Faces with an `image` that is a face crop, and perhaps `source`, `age`, `gender` and `race`.
        seed: Of the bootstrap.
        batch_size: Faces at a time; changes the speed only.
        progress: Show a progress bar.

    Returns:
        `count`, `image_size`, `minimum` (faces of a group with a mean), `resamples` of the bootstrap, `groups` and
        `unlabelled`. A group has `source`, `attribute`, `group` (the value), `count`, and `l1` (gray levels of 255)
        and `structural`, each with `mean`, `low` and `high` of the 95 % interval, or null where it is too small.
        `unlabelled` counts the faces without a label, for every source and attribute that labels some.

    Raises:
        DataError: If there is no face, or a picture cannot be read.
    """
    if not len(dataset):
        raise DataError("There is no face to reconstruct.")
    errors = _measure_all(model, dataset, batch_size, progress)
    groups = find_groups(dataset)
    return {
        "count": len(dataset),
        "image_size": model.config.image_size,
        "minimum": MINIMUM_FACES,
        "resamples": RESAMPLES,
        "groups": [_describe(group, errors, seed) for group in groups],
        "unlabelled": _unlabeled(groups),
    }


def _measure_all(
    model: FabRecAutoencoder, dataset: "datasets.Dataset", batch_size: int, progress: bool
) -> dict[str, np.ndarray]:
    """Decode and reconstruct a part of the faces at a time: any number of them fits."""
    parts = []
    bar = tqdm(total=len(dataset), desc="Reconstructing", unit="face", disable=not progress)
    with bar:
        for start in range(0, len(dataset), CHUNK):
            stop = min(start + CHUNK, len(dataset))
            part = dataset.select(range(start, stop)).select_columns("image")
            try:
                pictures = decode_pictures(part, canvas_size(model.config.image_size), progress=False)
            except DataError as error:
                raise DataError(f"Of the faces to reconstruct, counted from number {start}: {error}") from error
            parts.append(reconstruction_errors(model, Canvases(pictures), batch_size))
            bar.update(stop - start)
    levels, structural = (np.concatenate(values) for values in zip(*parts, strict=True))
    return {"l1": levels, "structural": structural}


def _describe(group: Group, errors: dict[str, np.ndarray], seed: int) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "source": group.source,
        "attribute": group.attribute,
        "group": group.value,
        "count": len(group.rows),
    }
    for name, values in errors.items():
        entry[name] = None
        if len(group.rows) >= MINIMUM_FACES:
            # One key for both measures: they are drawn on the same faces.
            key = f"{group.source}/{group.attribute}/{group.value}"
            low, high = bootstrap_interval(values[group.rows], key, seed)
            entry[name] = {"mean": float(values[group.rows].mean()), "low": low, "high": high}
    return entry


def _unlabeled(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Count the faces that belong to no group of an attribute that others of their source are grouped by."""
    missing = []
    wholes = {group.source: len(group.rows) for group in groups if group.attribute is None}
    for source, count in wholes.items():
        for attribute in ATTRIBUTES:
            labeled = [len(group.rows) for group in groups if (group.source, group.attribute) == (source, attribute)]
            if labeled and sum(labeled) < count:
                missing.append({"source": source, "attribute": attribute, "count": count - sum(labeled)})
    return missing
