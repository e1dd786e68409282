"""A landmark model, its image processor and a face detector in one: pictures in, faces with landmarks out."""

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch

from ..checkpoints.loading import load_landmark_model, move_to_device
from ..errors import FabRecError, ImageError
from ..model.face_detection import Detection, can_find_faces, default_face_detector
from ..model.image_inputs import as_picture
from ..model.known_schemes import LandmarkScheme
from ..model.landmark_reading import faces_of, read_landmarks
from ..model.modeling_fabrec import FabRecForLandmarkDetection
from ..model.second_look import boxes_of
from .expected_pixels import add_expected_errors


__all__ = ["Box", "Face", "Labeler", "LandmarkFinder"]

Box = tuple[float, ...]
"""A face as (x, y, width, height) in pixels of the upright picture, edges, in the convention of the model."""

Face = dict[str, torch.Tensor]
"""A face as `post_process_keypoint_detection` returns it: `keypoints`, `scores`, `bbox`, and what `find` adds."""


class Labeler(Protocol):
    """What labels pictures: a `LandmarkFinder`, or a teacher of another kind with the same methods."""

    name: str
    scheme: Any
    processor: Any

    @property
    def on_cpu(self) -> bool:
        """Whether the labeler computes on the CPU, where few pictures at a time are enough."""

    @property
    def num_landmarks(self) -> int:
        """Number of points L of a face."""

    def fingerprint(self) -> str:
        """Say what the labels depend on."""

    def detect(self, image: Any) -> list[Box]:
        """Find the faces of a picture."""

    def find(
        self, images: Sequence[Any], boxes: Sequence[Sequence[Any]], min_score: float | None = None
    ) -> list[list[Face]]:
        """Find the landmarks of the faces in pictures."""


class LandmarkFinder:
    """Finds faces, and the landmarks of faces. Safe to use from threads.

    Args:
        model: Folder, embedded name or Hub name of the checkpoint; or a detector and its image processor, such as
            `export.runtimes.load_exported` returns.
        device: Where to compute; the GPU by default where there is one. An export computes on the CPU.
        detector: Finds the faces; the default detector, loaded when first needed, if None.
        small_faces: Whether the default detector searches for small faces also where there are larger ones, which
            takes several times as long.

    Attributes:
        name: The checkpoint as it was named.
        model: The landmark model, in eval mode on the device, or an exported one; not to be changed.
        processor: Its image processor.
        scheme: The landmark scheme of the checkpoint, if it carries one.

    Raises:
        CheckpointError: If the checkpoint cannot be used.
        FabRecError: If there is no such device.
    """

    def __init__(
        self,
        model: str | tuple[Any, Any],
        device: str | None = None,
        detector: Callable[[Any], list[Detection]] | None = None,
        small_faces: bool = False,
    ):
        self.model: Any
        self.processor: Any
        self.model, self.processor = model if isinstance(model, tuple) else load_landmark_model(model)
        self.name = self.model.name_or_path if isinstance(model, tuple) else str(model)
        if isinstance(self.model, FabRecForLandmarkDetection):
            # The same landmarks sooner; the model itself is kept for callers that ask it for more.
            self._fused: Any = move_to_device(self.model, device).fuse()
        elif device in (None, "cpu"):
            self._fused = self.model
        else:
            raise FabRecError(f"An exported model computes on the CPU, not on {device}: leave the device out.")
        self._given_detector, self._small_faces = detector, small_faces
        values = self.model.config.landmark_scheme
        self.scheme = LandmarkScheme.from_dict(values) if values else None
        can_look = hasattr(detector, "look_at") or (detector is None and can_find_faces())
        self._look = self._look_at if can_look else None

    @property
    def scheme_name(self) -> str | None:
        """The name of the model's landmark scheme."""
        return self.scheme.name if self.scheme else None

    @property
    def num_landmarks(self) -> int:
        """Number of points L of a face."""
        return self.model.config.num_landmarks

    def fingerprint(self) -> str:
        """Hash the weights and the settings of the model and its processor: its labels are no other model's."""
        digest = hashlib.sha256(self.model.config.to_json_string().encode())
        digest.update(self.processor.to_json_string().encode())
        if isinstance(self.model, FabRecForLandmarkDetection):
            for name, value in sorted(self.model.state_dict().items()):
                digest.update(name.encode())
                digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        else:
            for file in self.model.files:
                digest.update(file.read_bytes())
        return digest.hexdigest()

    @property
    def point_names(self) -> tuple[str, ...] | None:
        """The names of the model's points, if it carries a scheme."""
        return self.scheme.point_names if self.scheme else None

    @property
    def on_cpu(self) -> bool:
        """Whether the model computes on the CPU, where few pictures at a time are enough."""
        return self.model.device.type == "cpu"

    def detect(self, image: Any) -> list[Box]:
        """Find the faces of a picture, the largest first, as boxes to give to `find`.

        Raises:
            ImageError: If the picture cannot be read.
            ImportError: If the detector's packages are not installed.
        """
        try:
            found = self._detector(as_picture(image).rgb)
        except FabRecError:
            raise
        except ValueError as error:
            raise ImageError(str(error)) from error
        return boxes_of(found, self.processor)

    def find(
        self, images: Sequence[Any], boxes: Sequence[Sequence[Any]], min_score: float | None = None
    ) -> list[list[Face]]:
        """Find the landmarks of the faces in pictures.

        Args:
            images: Upright pictures, in any form that the image processor takes. A `Picture` is read once for all that
                is done with it.
            boxes: The faces of each of them, perhaps none. Boxes of `detect` know how their faces are turned; a face
                in another box is looked at a second time where it may be turned.
            min_score: Landmarks that score lower become NaN.

        Returns:
            For each picture a face a box, in their order, on the CPU; with `expected_errors` (L,) in pixels, where the
            detector is calibrated by an error model, `roll` where its crop was turned, and
            `is_face`, false, where the detector sees no face in a given box.

        Raises:
            BoxError, ImageError: If a box or picture is not usable.
        """
        try:
            pictures = [as_picture(image) for image in images]
            reading = read_landmarks(self._fused, self.processor, pictures, boxes, self._look)
        except FabRecError:
            raise
        except ValueError as error:
            raise ImageError(str(error)) from error
        found = faces_of(reading, self.processor, len(images), min_score)
        add_expected_errors([face for entry in found for face in entry], self.model.config)
        return found

    def _look_at(self, image: Any, box: Sequence[float]) -> Detection | None:
        """Look closely at a face of a given box."""
        return self._detector.look_at(image.rgb, box)

    @property
    def _detector(self) -> Any:
        return self._given_detector or default_face_detector(small_faces=self._small_faces)
