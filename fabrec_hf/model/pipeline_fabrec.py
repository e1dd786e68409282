"""The pipeline `face-landmark-detection`: pictures in, faces with landmarks in the pictures' own pixels out."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from transformers import Pipeline

from .geometry import boxes_per_image
from .image_inputs import as_image_list, load_rgb
from .second_look import FaceBox, SecondLook, boxes_of, mark_faceless, run_in_passes


class FaceLandmarkPipeline(Pipeline):
    """Finds the landmarks of all faces in a picture.

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
                out), `batch_size` (images at a time, 1 by default).

        Returns:
            For one image a list with, for every face, `{"keypoints": [[x, y], ...], "scores": [...], "bbox": [x, y,
            width, height]}`: plain floats, pixel centres at integers, scores in [0, 1], the box as given. A face that
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

        The base class collates items into tensors, which pictures with different numbers of faces do not fit.
        """
        items = iter(_items(inputs))
        while batch := list(islice(items, batch_size)):
            yield from self.run_single(batch, preprocess_params, forward_params, postprocess_params)

    def preprocess(self, input_: Any, face_detector: Callable | None = None) -> dict[str, Any]:
        """Read one picture or a list of them, and find their faces."""
        items = input_ if isinstance(input_, list) else [input_]
        images, boxes = [], []
        for index, item in enumerate(items):
            image, faces = (item["image"], item.get("boxes")) if isinstance(item, dict) else (item, None)
            pixels = load_rgb(image, index)
            # Floats come back in [0, 255] and would go in again in [0, 1].
            images.append(pixels / 255 if pixels.is_floating_point() else pixels)
            if faces is None:
                boxes.append(boxes_of(_find_faces(pixels, face_detector), self.image_processor))
            else:
                (checked,) = boxes_per_image([faces], 1)
                boxes.append([] if checked is None else list(checked))
        num_images = len(items) if isinstance(input_, list) else None
        # NumPy keeps pictures and boxes off the model's device, which gets the crops alone.
        rolls = [np.array([getattr(box, "roll", np.nan) for box in entry]) for entry in boxes]
        return {
            "images": [image.cpu().numpy() for image in images],
            "boxes": [np.reshape([tuple(box) for box in entry], (-1, 4)) for entry in boxes],
            "rolls": rolls,
            "num_images": num_images,
        }

    def _forward(self, input_tensors: dict[str, Any], face_detector: Callable | None = None) -> dict[str, Any]:
        second_look = SecondLook(
            partial(run_in_passes, self.model),
            self.image_processor,
            self.model.config,
            _look_of(face_detector),
            input_data_format="channels_first",
        )
        boxes = [
            [box if np.isnan(roll) else FaceBox(box, roll) for box, roll in zip(entry, rolls, strict=True)]
            for entry, rolls in zip(input_tensors["boxes"], input_tensors["rolls"], strict=True)
        ]
        reading = second_look(input_tensors["images"], boxes)
        # NumPy keeps the geometry in 64 bits, wherever the base class moves the tensors.
        geometry = {name: np.asarray(value) for name, value in reading.geometry.items()}
        return {
            "landmarks": reading.landmarks,
            "scores": reading.scores,
            "geometry": geometry,
            "faceless": reading.faceless,
            "num_images": input_tensors["num_images"],
        }

    def postprocess(self, model_outputs: dict[str, Any], threshold: float | None = None) -> list:
        """Take the landmarks back to the pictures' pixels, as plain lists and floats."""
        num_images = model_outputs["num_images"]
        results = self.image_processor.post_process_keypoint_detection(
            SimpleNamespace(landmarks=model_outputs["landmarks"], scores=model_outputs["scores"]),
            **model_outputs["geometry"],
            num_images=1 if num_images is None else num_images,
            threshold=threshold,
        )
        results = mark_faceless(results, model_outputs["faceless"])
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
    return None if look is None else lambda image, box: look(torch.from_numpy(image), box)


def _find_faces(pixels: torch.Tensor, face_detector: Callable | None) -> list[Any]:
    """Return what the detector finds in a (3, H, W) picture with values in [0, 255]."""
    if face_detector is None:
        try:
            from .face_detection import default_face_detector

            face_detector = default_face_detector()
        except ImportError as error:
            raise ValueError(f"No boxes were given and no faces can be found: {error} Or give boxes=.") from error
    picture = pixels.cpu().permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).contiguous().numpy()
    return list(face_detector(picture))


__all__ = ["FaceLandmarkPipeline"]
