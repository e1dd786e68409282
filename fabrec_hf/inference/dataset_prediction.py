"""Predict the landmarks of a whole data set in little memory, with the same bits on any number of threads."""

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm.auto import tqdm

from ..common.choices import PROTOCOLS
from ..errors import DataError, SchemeError
from ..model.configuration_fabrec import FabRecConfig
from ..model.image_processing_fabrec import FabRecImageProcessor
from ..model.known_schemes import LandmarkScheme
from ..model.landmark_reading import read_landmarks
from ..model.lone_threads import FACES_PER_THREAD, in_order, lone_threads
from ..model.modeling_fabrec import FabRecForLandmarkDetection


if TYPE_CHECKING:
    import datasets


__all__ = [
    "apply_protocol",
    "checkpoint_scheme",
    "iterate_predictions",
    "predict_dataset",
]


def predict_dataset(
    model: Any,
    processor: FabRecImageProcessor,
    dataset: "datasets.Dataset",
    batch_size: int = 32,
    progress: bool = False,
) -> np.ndarray:
    """Predict the landmarks of every row, each in the face box that comes with it.

    Args:
        model: The landmark model, its fused twin or an exported one, on the device and in the mode to predict in.
        processor: Its image processor.
        dataset: Rows with `image` and `box` (x, y, width, height).
        batch_size: Faces at a time; changes speed and memory only.
        progress: Show a progress bar.

    Returns:
        (N, L, 2) points in pixels of the rows' images, float64, pixel centers at integers.

    Raises:
        DataError: If an image cannot be read.
    """
    faces = dataset.select_columns(["image", "box"])
    pieces = iterate_predictions(model, processor, faces, batch_size, progress=progress)
    return np.concatenate([predictions for _, _, predictions, _ in pieces])


def iterate_predictions(
    model: Any,
    processor: FabRecImageProcessor,
    dataset: "datasets.Dataset",
    batch_size: int = 32,
    rank: int = 0,
    world_size: int = 1,
    progress: bool = False,
) -> Iterator[tuple[int, dict[str, list], np.ndarray, np.ndarray]]:
    """Predict a data set piece by piece; a piece is read, computed, handed out and forgotten.

    Args:
        model: As `predict_dataset` takes it.
        processor: As `predict_dataset` takes it.
        dataset: Rows with `image` and `box`; other columns are handed through.
        batch_size: Faces at a time.
        rank: Which of the processes this is: it gets the pieces `rank`, `rank + world_size`, ...
        world_size: How many processes share the data. The pieces are the same for any number of them.
        progress: Show a progress bar over this process's share.

    Yields:
        For every piece in order: its first row, its columns without the image, its (n, L, 2) landmarks and their
        (n, L) scores, both as float64.

    Raises:
        DataError: If an image cannot be read.
    """
    on_cpu = model.device.type == "cpu"
    size = min(batch_size, FACES_PER_THREAD) if on_cpu else batch_size
    window = max(1, batch_size // size)  # pieces that are in memory at once

    def predict(start: int) -> tuple[int, dict[str, list], np.ndarray, np.ndarray]:
        rows = dataset[start : start + size]
        boxes = [[box] for box in rows["box"]]
        reading = read_landmarks(model, processor, rows.pop("image"), boxes, second_look=False, faces_per_pass=size)
        return start, rows, reading.points, reading.scores.double().numpy()

    starts = range(rank * size, len(dataset), world_size * size)
    total = sum(min(size, len(dataset) - start) for start in starts)
    with (
        tqdm(total=total, desc="Evaluating", unit="face", disable=not progress) as bar,
        lone_threads(min(window, torch.get_num_threads()) if on_cpu else 1) as pool,
    ):
        for start, future in in_order(pool, predict, starts, window):
            try:
                piece = future.result()
            except (OSError, ValueError) as error:
                last = min(start + size, len(dataset)) - 1
                raise DataError(f"A picture in rows {start} to {last} cannot be read: {error}") from error
            yield piece
            bar.update(len(piece[2]))


def checkpoint_scheme(config: FabRecConfig, num_points: int) -> LandmarkScheme:
    """Return the scheme that a checkpoint carries, if the data has its points.

    Raises:
        SchemeError: If it carries none, or the data has another number of points.
    """
    if config.landmark_scheme is None:
        raise SchemeError("The checkpoint carries no landmark scheme; save it with landmark_scheme in its config.")
    scheme = LandmarkScheme.from_dict(config.landmark_scheme)
    if scheme.num_landmarks != num_points:
        raise SchemeError(
            f"The checkpoint finds the {scheme.num_landmarks} points of {scheme.name}, but the data has {num_points}; "
            "evaluate it on data of its own scheme."
        )
    return scheme


def apply_protocol(
    model: FabRecForLandmarkDetection, scheme: LandmarkScheme, protocol: str, flip_average: bool | None
) -> FabRecForLandmarkDetection:
    """Return a twin of the model in eval mode that shares its weights and decodes as the protocol says.

    Args:
        model: The model; neither changed nor switched to another mode.
        scheme: Its scheme.
        protocol: `"default"` decodes as the checkpoint is configured; `"paper"` takes the authors' argmax of the
            plain, unmirrored heatmaps (paper section 4.2.2), and nothing else.
        flip_average: Average heatmaps with the mirrored crop's; None leaves it to the protocol.

    Raises:
        SchemeError: If mirrored heatmaps are asked for and the scheme has no flip pairs.
        ValueError: If the protocol is unknown.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"The protocol is one of {', '.join(PROTOCOLS)}, not {protocol!r}.")
    config = copy.deepcopy(model.config)
    if protocol == "paper":
        config.decoding, config.flip_average = "argmax", False
    if flip_average is not None:
        config.flip_average = flip_average
    if config.flip_average and not scheme.flip_pairs:
        raise SchemeError(f"The scheme {scheme.name} has no flip pairs, so mirrored heatmaps cannot be averaged.")
    twin = copy.copy(model)
    twin.config, twin._modules = config, dict(model._modules)
    if protocol == "paper":
        config.shape_prior = config.local_refinement = False
        config.error_model = config.score_calibration = None  # fitted to what the protocol leaves out
        twin.shape_prior = twin.point_regression = twin.point_readout = twin.local_refinement = None
    # The twin's own mode: its layers do the same in both, and are the model's.
    twin.training = False
    return twin
