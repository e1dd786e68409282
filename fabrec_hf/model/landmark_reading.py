"""The one way from pictures and boxes to landmarks in the pictures, for pipeline, commands, pages and scores alike.

A box becomes a crop, the crop goes through the network, a turned face is read again upright, and the points go back
to the picture.
"""

import threading
import weakref
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from .second_look import Reading, SecondLook, mark_faceless, read_once


# Faces in one forward pass: a crowd in one picture shall not fill the memory.
FACES_PER_PASS = 32

Look = Callable[[Any, Any], Any]


@torch.inference_mode()
def read_landmarks(
    model: Any,
    processor: Any,
    images: Sequence[Any],
    boxes: Sequence[Sequence[Any]],
    look: Look | None = None,
    second_look: bool = True,
    faces_per_pass: int = FACES_PER_PASS,
) -> Reading:
    """Read the landmarks of the faces in pictures.

    Args:
        model: What finds landmarks in crops: a detector, its fused twin or an exported one, on the device and in the
            mode to work in.
        processor: Its image processor.
        images: Pictures, in any form that the image processor takes. One that is needed several times is read once
            if it is a `Picture`.
        boxes: The faces of each of them as (x, y, width, height) in pixels: a `FaceBox` where it is known how a face
            is turned, any other box where it is not.
        look: What looks closely at a face, see [`SecondLook`]; None where there is no face detector.
        second_look: Whether faces are read again in crops that are turned with them. Scores of published sets look
            once, at the box that belongs to the face.
        faces_per_pass: The most crops that go through the network at a time; changes speed and memory only.

    Returns:
        What was read of all N faces, in the order of pictures and boxes. `points` are in pixels of the pictures.

    Raises:
        ValueError: A picture or box is not usable.
    """
    run = partial(run_in_passes, model, faces_per_pass=faces_per_pass)
    if not second_look:
        return read_once(run, processor, images, boxes)
    return SecondLook(run, processor, model.config, look)(images, boxes)


def faces_of(
    reading: Reading, processor: Any, num_images: int, threshold: float | None = None
) -> list[list[dict[str, torch.Tensor]]]:
    """Return what was read as a list of faces for every picture, as `post_process_keypoint_detection` does.

    Args:
        reading: From `read_landmarks`.
        processor: The image processor that it was read with.
        num_images: Number of pictures.
        threshold: Points with a lower score become NaN.

    Returns:
        The faces of each picture; those of given boxes in which there is no face have `is_face`, false.
    """
    found = processor.post_process_keypoint_detection(
        reading, **reading.geometry, num_images=num_images, threshold=threshold
    )
    return mark_faceless(found, reading.faceless)


def run_in_passes(
    model: Any, pixel_values: torch.Tensor, faces_per_pass: int = FACES_PER_PASS
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return landmarks and scores of any number of crops on the CPU, in several passes where they are many."""
    passes = [model(part.to(model.device, model.dtype)) for part in pixel_values.split(faces_per_pass)]
    landmarks = torch.cat([part.landmarks for part in passes]).float()
    return landmarks.cpu(), torch.cat([part.scores for part in passes]).float().cpu()


class FusedTwin:
    """Keeps the fused twin of a model that its owner may still change, and makes it anew where that happened.

    Calling it with a model returns what finds the same landmarks sooner: its twin, or the model itself where a twin
    would do something else. That is so of a model that is not in eval mode or not in 32 bits, one that was compiled or
    wrapped, and one with hooks.
    """

    def __init__(self) -> None:
        self._kept: tuple[weakref.ref, Any, Any] | None = None
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple:
        """Copies begin without a twin."""
        return type(self), ()

    def __call__(self, model: Any) -> Any:
        """Return the twin of a model as it is now, or the model."""
        state = _state_of(model)
        with self._lock:  # of several threads, the first one makes it
            kept = self._kept
            if state is None:
                self._kept = None
                return model
            if kept is None or kept[0]() is not model or kept[1] != state:
                self._kept = kept = weakref.ref(model), state, model.fuse()
            return kept[2]


def _state_of(model: Any) -> Any:
    """Return what a twin depends on, to be compared; None for a model that is to run as it is."""
    # A compiled model has the methods of the one inside, but its class does not.
    if not hasattr(type(model), "fuse") or model.training or model.dtype != torch.float32:
        return None
    if any(_has_hooks(module) for module in model.modules()):
        return None
    tensors = [*model.parameters(), *model.buffers()]
    if any(tensor.is_inference() for tensor in tensors):  # these do not count their changes
        return None
    return [(id(tensor), tensor.data_ptr(), tensor._version) for tensor in tensors], dict(vars(model.config))


def _has_hooks(module: nn.Module) -> bool:
    # Accelerate replaces `forward` of what it moves between devices.
    return bool(module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module))


__all__ = ["FACES_PER_PASS", "FusedTwin", "Look", "faces_of", "read_landmarks", "run_in_passes"]
