"""The pipeline `face-landmark-detection`: pictures in, faces with landmarks in the pictures' own pixels out."""

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from transformers import Pipeline

from .geometry import boxes_per_image
from .image_inputs import Picture, as_image_list
from .landmark_reading import FusedTwin, faces_of, read_landmarks
from .lone_threads import in_order, lone_threads
from .second_look import FaceBox, Reading, boxes_of


class FaceLandmarkPipeline(Pipeline):
    """Finds the landmarks of all faces in a picture.

    A model in eval mode and 32 bits runs as its fused twin (`model.fuse()`), which finds the same landmarks sooner.

    Example:
        >>> import fabrec_hf
        >>> from transformers import pipeline
        >>> detect = pipeline("face-landmark-detection", model=str(fabrec_hf.weights_path("3fabrec-300w")))
        >>> faces = detect("photo.jpg", boxes=[[120, 80, 200, 210]])
        >>> len(faces[0]["keypoints"])
        68
    """

    _load_processor = False
    _load_image_processor = True
    _load_video_processor = False
    _load_feature_extractor = False
    _load_tokenizer = False

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._twin = FusedTwin()

    def __call__(self, images: Any, boxes: Any = None, **kwargs) -> Any:
        """Find the landmarks.

        Args:
            images: One image (PIL image, path, URL, array or tensor, as the image processor takes them), a list of
                them, or a data set or generator of them. An item may also be a dict of `"image"` and `"boxes"`.
            boxes: For one image a list of faces as (x, y, width, height) in pixels of the upright picture, edges; for
                a list of images one such list each, or None. An empty list means no face. Where there are no boxes,
                the face detector finds them.
            **kwargs: For this call, or for every one when given to `pipeline(...)`: `threshold` (points with a lower
                score become NaN and keep their places), `face_detector` (a `FaceDetector`, the default one if left
                out), `batch_size` (images at a time, 1 by default), `num_workers` (threads that work on several images
                side by side, each without PyTorch's threads; with as many as there are cores a CPU finds the faces of
                many images about twice as fast; 0 by default).

        Returns:
            For one image a list with, for every face, `{"keypoints": [[x, y], ...], "scores": [...], "bbox": [x, y,
            width, height]}`: plain floats, pixel centers at integers, scores in [0, 1], the box as given. A face that
            is turned by more than 20 degrees also has `"roll"`, the degrees clockwise by which its box is turned
            about its middle. For a list of images a list of these lists; for a data set or generator an iterator
            over them.

        Raises:
            ValueError: An image or box is not usable, or faces cannot be found because the detector's packages are
                not installed.
            FileNotFoundError: A path does not exist.
        """
        if isinstance(images, tuple) or (isinstance(images, (np.ndarray, torch.Tensor)) and images.ndim == 4):
            images = list(images)
        if isinstance(images, list) and not images:
            return []
        if boxes is None:
            return super().__call__(images, **kwargs)
        if isinstance(images, list):
            entries = boxes_per_image(boxes, len(images))
            paired: Any = [{"image": image, "boxes": entry} for image, entry in zip(images, entries, strict=True)]
        elif isinstance(images, (Iterator, torch.utils.data.Dataset)):
            raise ValueError('Give the boxes of a data set or generator with its items: {"image": ..., "boxes": ...}.')
        else:
            (image,) = as_image_list(images)
            paired = {"image": image, "boxes": boxes_per_image(boxes, 1)[0]}
        return super().__call__(paired, **kwargs)

    def _sanitize_parameters(
        self, face_detector: Callable | None = None, threshold: float | None = None
    ) -> tuple[dict, dict, dict]:
        detector = {} if face_detector is None else {"face_detector": face_detector}
        postprocess = {} if threshold is None else {"threshold": threshold}
        return detector, detector, postprocess

    def get_iterator(
        self, inputs: Any, num_workers: int, batch_size: int, preprocess_params, forward_params, postprocess_params
    ) -> Iterator[list[dict[str, Any]]]:
        """Yield the faces of picture after picture, `batch_size` pictures in one forward pass.

        The base class collates items into tensors, which pictures with different numbers of faces do not fit, and has
        workers in processes of their own, which pictures and results would have to be sent to and from.
        """
        items = iter(_items(inputs))
        batches = iter(lambda: list(islice(items, batch_size)), [])

        def run(batch: list) -> list:
            return self.run_single(batch, preprocess_params, forward_params, postprocess_params)

        if not num_workers:
            for batch in batches:
                yield from run(batch)
            return
        with lone_threads(num_workers) as pool:
            for _, future in in_order(pool, run, batches, num_workers + 1):
                yield from future.result()

    def preprocess(self, input_: Any, face_detector: Callable | None = None) -> dict[str, Any]:
        """Read one picture or a list of them, and find their faces."""
        items = input_ if isinstance(input_, list) else [input_]
        images, boxes = [], []
        for index, item in enumerate(items):
            image, faces = (item["image"], item.get("boxes")) if isinstance(item, dict) else (item, None)
            images.append(Picture(image, index))
            if faces is None:
                boxes.append(boxes_of(_find_faces(images[-1], face_detector), self.image_processor))
            else:
                (checked,) = boxes_per_image([faces], 1)
                boxes.append([] if checked is None else list(checked))
        num_images = len(items) if isinstance(input_, list) else None
        # The model's device gets the crops alone: the base class moves neither pictures nor arrays to it.
        rolls = [np.array([getattr(box, "roll", np.nan) for box in entry]) for entry in boxes]
        return {
            "images": images,
            "boxes": [np.reshape([tuple(box) for box in entry], (-1, 4)) for entry in boxes],
            "rolls": rolls,
            "num_images": num_images,
        }

    def _forward(self, input_tensors: dict[str, Any], face_detector: Callable | None = None) -> dict[str, Any]:
        boxes = [
            [box if np.isnan(roll) else FaceBox(box, roll) for box, roll in zip(entry, rolls, strict=True)]
            for entry, rolls in zip(input_tensors["boxes"], input_tensors["rolls"], strict=True)
        ]
        images, look = input_tensors["images"], _look_of(face_detector)
        reading = read_landmarks(self._twin(self.model), self.image_processor, images, boxes, look)
        # NumPy keeps the geometry in 64 bits, wherever the base class moves the tensors.
        geometry = {name: np.asarray(value) for name, value in reading.geometry.items()}
        return {**reading._replace(geometry=geometry)._asdict(), "num_images": input_tensors["num_images"]}

    def postprocess(self, model_outputs: dict[str, Any], threshold: float | None = None) -> list:
        """Take the landmarks back to the pictures' pixels, as plain lists and floats."""
        num_images = model_outputs.pop("num_images")
        reading = Reading(**model_outputs)
        results = faces_of(reading, self.image_processor, 1 if num_images is None else num_images, threshold)
        plain = [[{name: value.tolist() for name, value in face.items()} for face in faces] for faces in results]
        return plain[0] if num_images is None else plain


def _items(inputs: Any) -> Iterable:
    """Walk over a list, a generator or a map-style data set, which need not be iterable."""
    if isinstance(inputs, torch.utils.data.Dataset) and not hasattr(inputs, "__iter__"):
        return (inputs[index] for index in range(len(inputs)))  # type: ignore[arg-type]
    return inputs


def _look_of(face_detector: Callable | None) -> Callable[[Any, Any], Any] | None:
    """Return what looks at the face about a given box at any turn; None where no detector can."""
    if face_detector is None:
        from .face_detection import can_find_faces, default_face_detector

        face_detector = default_face_detector() if can_find_faces() else None
    look = getattr(face_detector, "look_at", None)
    return None if look is None else lambda image, box: look(image.rgb, box)


def _find_faces(picture: Picture, face_detector: Callable | None) -> list[Any]:
    """Return what the detector finds in a picture."""
    if face_detector is None:
        try:
            from .face_detection import default_face_detector

            face_detector = default_face_detector()
        except ImportError as error:
            raise ValueError(f"No boxes were given and no faces can be found: {error} Or give boxes=.") from error
    return list(face_detector(picture.rgb))


__all__ = ["FaceLandmarkPipeline"]
