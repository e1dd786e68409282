"""Where a training loop gets its faces from: memory, loading processes, or a stream; always the same uint8 canvases.

Held in memory, the faces are decoded once and the training device is the limit. Where they do not fit, processes
decode them again and again, ahead of the loop. Both give the same batches. A stream reads files of any size in their
order, through a buffer that shuffles them.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import torch
from torch.utils.data import DataLoader
from training_utils import logger

from fabrec_hf.data import held_out_faces, load_faces
from fabrec_hf.data.canvases import Canvases
from fabrec_hf.data.decoding import CANVAS_RATIO, FaceDecoder, decode_faces
from fabrec_hf.data.face_set import shared_face_set
from fabrec_hf.data.face_table import encoded_images
from fabrec_hf.data.splits import is_held_out
from fabrec_hf.errors import DataError
from fabrec_hf.evaluation.reconstruction_errors import canvas_size
from fabrec_hf.learning.schedules import batch_indices


if TYPE_CHECKING:
    import datasets


FEEDS = ("auto", "memory", "workers", "stream")

HELD_OUT_FACES = 2000  # enough to tell two checkpoints apart, and quick

SHUFFLE_BUFFER = 4096  # encoded faces of a stream that wait to be drawn from


@dataclass(frozen=True)
class Schedule:
    """Which faces belong to which step.

    Attributes:
        batch_size: Faces a step, over all processes.
        seed: Of their order.
        start: The first step.
        stop: The step after the last.
        rank: This process.
        world_size: How many there are: each takes every n-th face of a batch, from its rank on.
    """

    batch_size: int
    seed: int
    start: int
    stop: int
    rank: int = 0
    world_size: int = 1

    def rows(self, count: int, step: int) -> list[int]:
        """Return the rows of a step that this process has, of a data set of `count` faces."""
        return batch_indices(count, self.batch_size, self.seed, step)[self.rank :: self.world_size].tolist()

    def batches(self, count: int) -> Iterator[list[int]]:
        """Yield the rows of one step after the other."""
        return (self.rows(count, step) for step in range(self.start, self.stop))


def load_training_faces(
    paths: list[str], image_size: int, held_out_fraction: float, stream: bool
) -> "tuple[Any, datasets.Dataset, FaceDecoder]":
    """Open the faces to train on, and those held out (at most 2,000 of them).

    Faces of a set that `fabrec convert` wrote are cut out by their boxes, as the paper does for that set; others are
    taken for crops, and held with a quarter more pixels than the model sees.

    Args:
        paths: Parquet files or folders.
        image_size: Side of the crops that the model sees.
        held_out_fraction: Share of the faces that are never trained on, as `held_out_faces` chooses them.
        stream: Read the files as the training goes.

    Returns:
        The faces to train on (an `IterableDataset` for a stream), those held out, and what decodes both.

    Raises:
        DataError: If there are too few.
    """
    faces: Any = load_faces(paths, streaming=stream)
    face_set = shared_face_set(paths)
    decoder = FaceDecoder(canvas_size(image_size))
    if face_set is not None and not any("none" in split["boxes"] for split in face_set.splits.values()):
        decoder = FaceDecoder(round(image_size * CANVAS_RATIO), (face_set.extend_top, face_set.extend_bottom))
    if stream:
        import datasets

        faces = encoded_images(faces)
        found = list(islice(faces.filter(lambda row: is_held_out(row["image"], held_out_fraction)), HELD_OUT_FACES))
        training = faces.filter(lambda row: not is_held_out(row["image"], held_out_fraction))
        count, empty = len(found), next(iter(training), None) is None
        held_out = datasets.Dataset.from_list(found, features=faces.features) if found else None
    else:
        training, held_out = held_out_faces(faces, held_out_fraction)
        count, empty = len(faces), not len(training)
        held_out = held_out.select(range(min(len(held_out), HELD_OUT_FACES)))
    if empty or not held_out:
        raise DataError(f"{count} faces are too few: raise --held_out_fraction or add data.")
    return training, held_out, decoder


def choose_feed(count: int, size: int, device: torch.device) -> str:
    """Return `memory` if the decoded faces take at most half of what is free, on the device or else on the host."""
    needed = count * 3 * size**2
    if device.type == "cuda" and needed <= torch.cuda.mem_get_info(device)[0] / 2:
        return "memory"
    return "memory" if needed <= psutil.virtual_memory().available / 2 else "workers"


def memory_feed(
    faces: "datasets.Dataset", decoder: FaceDecoder, schedule: Schedule, device: torch.device
) -> Iterator[Canvases]:
    """Yield batches on the device from faces that are all decoded first.

    They are held on the device if they take at most half of its free memory, else on the host.
    """
    canvases = decode_faces(faces, decoder)
    if device.type == "cuda" and canvases.pixels.nbytes <= torch.cuda.mem_get_info(device)[0] / 2:
        canvases = canvases.to(device)
    for rows in schedule.batches(len(canvases)):
        yield canvases.subset(rows).to(device)


def worker_feed(
    faces: "datasets.Dataset", decoder: FaceDecoder, schedule: Schedule, device: torch.device, workers: int
) -> Iterator[Canvases]:
    """Yield the batches of `memory_feed`, decoded by other processes ahead of the loop."""
    loader: DataLoader = DataLoader(
        _Pictures(faces, decoder),  # type: ignore[arg-type]
        batch_sampler=_Batches(schedule, len(faces)),  # type: ignore[arg-type]
        num_workers=workers,
        pin_memory=device.type == "cuda",
        multiprocessing_context="spawn" if workers else None,
    )
    for pixels in loader:
        canvases = Canvases(pixels.permute(0, 3, 1, 2), decoder.crop_fraction)
        yield canvases.to(device, non_blocking=True)


@dataclass(frozen=True)
class _Batches:
    """The rows of every step, as a batch sampler."""

    schedule: Schedule
    count: int

    def __iter__(self) -> Iterator[list[int]]:
        return self.schedule.batches(self.count)

    def __len__(self) -> int:
        return self.schedule.stop - self.schedule.start


class _Pictures:
    """A map-style data set of decoded faces."""

    def __init__(self, faces: "datasets.Dataset", decoder: FaceDecoder):
        self.faces = encoded_images(faces)
        self.decoder = decoder

    def __len__(self) -> int:
        return len(self.faces)

    def __getitem__(self, row: int) -> np.ndarray:
        return self.decoder(self.faces[row] | {"row": row})


def stream_feed(
    faces: "datasets.IterableDataset", decoder: FaceDecoder, schedule: Schedule, device: torch.device
) -> Iterator[Canvases]:
    """Yield batches from a stream that is shuffled anew in every pass; a resumed run skips what it has seen."""
    faces = encoded_images(faces)
    passes = (faces.shuffle(seed=schedule.seed + epoch, buffer_size=SHUFFLE_BUFFER) for epoch in range(2**31))
    rows = chain.from_iterable(passes)
    rows = islice(rows, schedule.start * schedule.batch_size, schedule.stop * schedule.batch_size)
    with ThreadPoolExecutor() as pool, ThreadPoolExecutor(1) as ahead:

        def decode() -> torch.Tensor | None:
            batch = list(islice(rows, schedule.batch_size))[schedule.rank :: schedule.world_size]
            numbered = [row | {"row": number} for number, row in enumerate(batch)]
            return torch.from_numpy(np.stack(list(pool.map(decoder, numbered)))) if batch else None

        waiting = ahead.submit(decode)
        while (pixels := waiting.result()) is not None:
            waiting = ahead.submit(decode)
            yield Canvases(pixels.permute(0, 3, 1, 2), decoder.crop_fraction).to(device)


def open_feed(
    feed: str, faces, decoder: FaceDecoder, schedule: Schedule, device: torch.device, workers: int
) -> Iterator[Canvases]:
    """Yield one batch a step, in the way that `feed` names; `auto` chooses between memory and workers.

    Args:
        feed: One of `FEEDS`.
        faces: Rows with `image`, and `box` if the decoder cuts by it; an `IterableDataset` for `stream`.
        decoder: Makes canvases of rows.
        schedule: Which rows in which step.
        device: Where batches are wanted.
        workers: Loading processes, where there are any.
    """
    if feed == "stream":
        return stream_feed(faces, decoder, schedule, device)
    if feed == "auto":
        feed = choose_feed(len(faces), decoder.size, device)
        logger.info("Faces come from %s.", feed)
    if feed == "memory":
        return memory_feed(faces, decoder, schedule, device)
    return worker_feed(faces, decoder, schedule, device, workers)
