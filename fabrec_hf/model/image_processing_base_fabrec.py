"""What the torchvision and the PIL image processor share: arguments, geometry and the way back to the picture."""

from typing import Any, NamedTuple

import numpy as np
import torch
from transformers.feature_extraction_utils import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor
from transformers.image_utils import ImageInput, PILImageResampling, SizeDict
from transformers.processing_utils import ImagesKwargs, Unpack
from transformers.utils import TensorType

from .embedded_fabrec import embedded_or_given
from .geometry import (
    EXTEND_BOTTOM,
    EXTEND_TOP,
    boxes_per_image,
    crop_box_from_box,
    crop_box_from_image_size,
)
from .image_inputs import IMAGE_MEAN, as_image_list
from .turned_crops import landmarks_from_turned_crop, landmarks_to_turned_crop, rolls_per_image, turn_crops


IMAGE_STD = [1.0, 1.0, 1.0]

FILTER_NAMES = {PILImageResampling.BILINEAR: "bilinear", PILImageResampling.BICUBIC: "bicubic"}


class FabRecImageProcessorKwargs(ImagesKwargs, total=False):  # type: ignore[call-arg]
    """Arguments beyond those of every image processor.

    Attributes:
        extend_top: fraction of the box height that the crop adds above the box.
        extend_bottom: fraction of the box height that the crop adds below the box.
    """

    extend_top: float | None
    extend_bottom: float | None


class Normalization(NamedTuple):
    """How colors in [0, 255] become what the model takes.

    Attributes:
        do_rescale: whether to multiply by `rescale_factor`.
        rescale_factor: 1 / 255.
        do_normalize: whether to subtract `image_mean` and divide by `image_std`.
        image_mean: one number a channel.
        image_std: one number a channel.
    """

    do_rescale: bool
    rescale_factor: float
    do_normalize: bool
    image_mean: Any
    image_std: Any


class FaceBatch(BatchFeature):
    """The processor's result; `.to(...)` moves and casts the pixels and leaves the geometry as it is.

    A half-precision crop box would put every landmark whole pixels off, and some devices have no float64 at all, so
    `crop_boxes`, `face_boxes` and `image_indices` stay where they are, on the CPU.
    """

    def to(self, *args, **kwargs) -> "FaceBatch":
        """Calls `to(...)` of `pixel_values`, with a device, a dtype or both."""
        pixels = BatchFeature({"pixel_values": self["pixel_values"]}).to(*args, **kwargs)
        self["pixel_values"] = pixels["pixel_values"]
        return self


class FaceCropProcessor(BaseImageProcessor):
    """The backend-independent part of an image processor that cuts faces out of pictures.

    A backend's processor inherits from this class and from the backend, in this order, and adds `process_image` (one
    image in its own format), `crop_faces` and `normalize_faces`.
    """

    valid_kwargs = FabRecImageProcessorKwargs
    model_input_names = ["pixel_values"]

    do_resize = True
    size = {"height": 256, "width": 256}
    resample = PILImageResampling.BILINEAR
    do_rescale = True
    do_normalize = True
    image_mean = IMAGE_MEAN
    image_std = IMAGE_STD
    do_convert_rgb = True
    extend_top = EXTEND_TOP
    extend_bottom = EXTEND_BOTTOM

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, cache_dir=None, **kwargs):
        """Load from a folder, by the name of an embedded checkpoint or of a repository (see `BaseImageProcessor`)."""
        source = embedded_or_given(pretrained_model_name_or_path, cache_dir=cache_dir, **kwargs)
        return super().from_pretrained(source, cache_dir=cache_dir, **kwargs)

    def preprocess(
        self,
        images: ImageInput,
        boxes: Any = None,
        return_tensors: str | TensorType | None = "pt",
        rolls: Any = None,
        **kwargs: Unpack[FabRecImageProcessorKwargs],
    ) -> BatchFeature:
        """Cuts the faces out of pictures and normalizes them; this is what calling the processor does.

        Images are turned upright as their EXIF orientation says before anything else, so boxes and points refer to
        the upright picture. A crop is sampled from the picture once, with a filter that does not alias and with its
        float edges as they are; what lies beyond the picture is black, and so is what is transparent.

        Args:
            images: one image or a list: PIL images of any mode, paths, URLs, arrays (HWC or HW), tensors (CHW or HW)
                or a `Picture`, which was read already. Arrays and tensors hold uint8, uint16 or floats in [0, 1].
            boxes: faces as (x, y, width, height) in pixels, edges. For one image a box or a list of boxes; for
                several one list each, which may be empty, or None. None takes the whole picture for a face that is
                already cropped: the square around it, without the margins.
            return_tensors: "pt" or "np".
            rolls: by how many degrees each face is turned clockwise, as the boxes are given: one number a box. Its
                crop is turned with it, about the middle of the box. None for upright faces.
            **kwargs: any attribute of the processor, for this call alone: `size`, `resample` (bilinear or bicubic),
                `extend_top`, `extend_bottom`, `do_rescale`, `do_normalize`, `image_mean`, `image_std`,
                `input_data_format`, and `device` with the torchvision backend.

        Returns:
            A `BatchFeature` with one row for each of the N faces, over all images in their order:

            - `pixel_values` (N, 3, S, S) float32: RGB / 255 - mean.
            - `crop_boxes` (N, 4) float64: the square crops (x, y, side, side) in pixels of the upright picture.
            - `face_boxes` (N, 4) float64: the boxes as given, the whole picture where there were none.
            - `image_indices` (N,) int64: the image that each row belongs to.
            - `rolls` (N,) float64: as given, with `rolls` alone. The crop lies at `crop_boxes`, turned about its
              middle.

        Raises:
            ValueError: for a box that is not four finite numbers with a positive area, boxes that do not fit the
                images, an image that cannot be read, and settings that do not apply; one line that says which.
            FileNotFoundError: for a path that does not exist.
            TypeError: for something that is no image.
        """
        return super().preprocess(images, boxes, rolls, return_tensors=return_tensors, **kwargs)

    def _validate_preprocess_kwargs(self, **kwargs):
        super()._validate_preprocess_kwargs(**kwargs)
        fixed = {"do_resize": True, "do_convert_rgb": True, "do_center_crop": False, "do_pad": False}
        for name, value in fixed.items():
            if kwargs.get(name) not in (None, value):
                raise ValueError(f"{name}={kwargs[name]} does not apply: faces are always cropped to RGB of one size.")
        size = kwargs["size"]
        if not size.height or size.height != size.width:
            raise ValueError(f"size must be one positive number of pixels (height = width), got {size}.")
        if kwargs["resample"] not in FILTER_NAMES:
            raise ValueError(f"resample must be BILINEAR (2) or BICUBIC (3), got {kwargs['resample']}.")

    def _preprocess_image_like_inputs(
        self,
        images: ImageInput,
        boxes: Any,
        rolls: Any = None,
        *,
        size: SizeDict,
        resample: PILImageResampling,
        extend_top: float,
        extend_bottom: float,
        input_data_format: str | None,
        return_tensors: str | TensorType | None,
        device: str | torch.device | None = None,
        **kwargs,
    ) -> BatchFeature:
        """Reads image after image, so that only one decoded picture is held at a time, and cuts its faces out."""
        normalization = Normalization(*(kwargs[name] for name in Normalization._fields))
        images = as_image_list(images)
        boxes = boxes_per_image(boxes, len(images))
        given_rolls, rolls = rolls, rolls_per_image(rolls, boxes)
        pixels, crop_boxes, face_boxes = [], [np.empty((0, 4))], [np.empty((0, 4))]
        for index, (image, image_boxes, image_rolls) in enumerate(zip(images, boxes, rolls, strict=True)):
            image = self.process_image(image, input_data_format=input_data_format, device=device, index=index)
            height, width = image.shape[-2:]
            if image_boxes is None:
                image_boxes = np.array([[0.0, 0.0, width, height]])
                crops = crop_box_from_image_size(width, height)[None]
            else:
                crops = crop_box_from_box(image_boxes, extend_top, extend_bottom)
            crops = turn_crops(crops, image_boxes, image_rolls)
            pixels.extend(
                self.crop_faces(image, crops, (size.height, size.width), FILTER_NAMES[resample], image_rolls)
            )
            crop_boxes.append(crops)
            face_boxes.append(image_boxes)
        data = {
            "pixel_values": self.normalize_faces(pixels, (size.height, size.width), normalization, device),
            "crop_boxes": np.concatenate(crop_boxes),
            "face_boxes": np.concatenate(face_boxes),
            "image_indices": np.repeat(np.arange(len(images)), [len(crops) for crops in crop_boxes[1:]]),
        }
        if given_rolls is not None:
            data["rolls"] = np.concatenate(rolls) if rolls else np.empty(0)
        return FaceBatch(data, tensor_type=return_tensors)

    def boxes_from_detections(self, boxes: Any, rolls: Any = None) -> list[tuple[float, ...]]:
        """Turns boxes of a face detector into boxes of the data that the checkpoint was trained on.

        A detector gives the tight box of the 68 points, the box of 300-W. Another data set's box is another part of
        the face, which shows in the margins of its crops: the box returned is the one that gives the same crop.

        Args:
            boxes: (N, 4) tight boxes (x, y, width, height) in pixels.
            rolls: (N,) degrees by which they are turned about their middles; upright if None.

        Returns:
            N boxes to give to the processor; those of a processor with 300-W's margins are the detector's own.
        """
        boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
        if (self.extend_top, self.extend_bottom) != (EXTEND_TOP, EXTEND_BOTTOM):
            left, top, side, _ = crop_box_from_box(boxes).T
            height = side / (1.0 + self.extend_top + self.extend_bottom)
            others = np.stack([left, top + self.extend_top * height, side, height], axis=-1)
            boxes = others if rolls is None else turn_crops(others, boxes, np.asarray(rolls, dtype=np.float64))
        return [tuple(box) for box in boxes.tolist()]

    @staticmethod
    def landmarks_to_crop(landmarks: Any, crop_boxes: Any, rolls: Any = None) -> Any:
        """Maps points in pixels of the upright picture to [0, 1] of their crop: labels for the model.

        Args:
            landmarks: (L, 2) or (N, L, 2), pixel centers at integers, NaN for what is not annotated.
            crop_boxes: (4,) or (N, 4), as the processor returns them.
            rolls: a number or (N,), as the processor returns them; None for upright crops.

        Returns:
            The shape of `landmarks`; NaN stays NaN. See [`geometry.landmarks_to_crop`].
        """
        return landmarks_to_turned_crop(landmarks, crop_boxes, rolls)

    @staticmethod
    def landmarks_from_crop(landmarks: Any, crop_boxes: Any, rolls: Any = None) -> Any:
        """Maps points in [0, 1] of their crop to pixels of the upright picture.

        Args:
            landmarks: (L, 2) or (N, L, 2) fractions of the crop.
            crop_boxes: (4,) or (N, 4), as the processor returns them.
            rolls: a number or (N,), as the processor returns them; None for upright crops.

        Returns:
            The shape of `landmarks`; NaN stays NaN. See [`geometry.landmarks_from_crop`].
        """
        return landmarks_from_turned_crop(landmarks, crop_boxes, rolls)

    def post_process_keypoint_detection(
        self,
        outputs: Any,
        crop_boxes: Any,
        face_boxes: Any = None,
        image_indices: Any = None,
        num_images: int | None = None,
        threshold: float | None = None,
        rolls: Any = None,
    ) -> list[list[dict[str, torch.Tensor]]]:
        """Takes the model's landmarks back to the pixels of the upright pictures.

        Args:
            outputs: what the model returned: `landmarks` (N, L, 2) in [0, 1] of the crops and `scores` (N, L).
            crop_boxes: (N, 4), as the processor returned them.
            face_boxes: (N, 4), as the processor returned them; the crops stand in where they are missing.
            image_indices: (N,), as the processor returned them; missing, all rows belong to the one image if
                `num_images` is 1, and each row is an image of its own otherwise.
            num_images: number of images; without it, images after the last one with a face are left out.
            threshold: points with a lower score become NaN; the rows keep their places, so that an index still names
                its landmark.
            rolls: (N,), as the processor returned them; None for upright crops.

        Returns:
            For every image a list with, for every face, `keypoints` (L, 2) in pixels with centers at integers,
            `scores` (L,) and `bbox` (4,) the box as given, all on the CPU; and `roll` in degrees where the crop was
            turned: then `bbox` is turned about its middle by as much.

        Raises:
            ValueError: if the numbers of faces disagree, or an index names no image.
        """
        landmarks, scores = outputs.landmarks.detach().cpu(), outputs.scores.detach().cpu()
        crop_boxes = torch.as_tensor(crop_boxes).cpu()
        face_boxes = crop_boxes if face_boxes is None else torch.as_tensor(face_boxes).cpu()
        num_faces = len(landmarks)
        if image_indices is None:
            image_indices = [0] * num_faces if num_images == 1 else range(num_faces)
        image_indices = torch.as_tensor(image_indices).tolist()
        num_images = max(image_indices, default=-1) + 1 if num_images is None else num_images
        rolls = torch.zeros(num_faces) if rolls is None else torch.as_tensor(rolls).cpu()
        given = {"crop_boxes": crop_boxes, "face_boxes": face_boxes, "image_indices": image_indices, "rolls": rolls}
        _check_given(num_faces, num_images, given)
        if num_faces == 0:
            return [[] for _ in range(num_images)]

        keypoints = landmarks_from_turned_crop(landmarks, crop_boxes, rolls if rolls.any() else None)
        if threshold is not None:
            keypoints = keypoints.masked_fill((scores < threshold)[..., None], torch.nan)
        results: list[list[dict[str, torch.Tensor]]] = [[] for _ in range(num_images)]
        for face, index in enumerate(image_indices):
            turned = {"roll": rolls[face]} if rolls[face] else {}
            found = {"keypoints": keypoints[face], "scores": scores[face], "bbox": face_boxes[face]}
            results[index].append(found | turned)
        return results

    def post_process_pose_estimation(
        self, outputs: Any, boxes: Any, threshold: float | None = None
    ) -> list[list[dict[str, torch.Tensor]]]:
        """Takes the model's landmarks back to the pictures as `VitPoseImageProcessor` does, from the boxes alone.

        Code that was written for that class runs with this one. Unlike `post_process_keypoint_detection` it leaves
        points with a low score out, and `labels` says which ones are left.

        Args:
            outputs: what the model returned for the crops of these boxes.
            boxes: for every image the boxes (x, y, width, height) that the processor was given.
            threshold: points with this score or a lower one are left out.

        Returns:
            For every image a list with, for every box, `keypoints` (K, 2) in pixels with centers at integers, `scores`
            (K,), `labels` (K,) the indices of the points, and `bbox` (4,) the box as given, all on the CPU.

        Raises:
            ValueError: if the numbers of faces disagree, or a box is malformed.
        """
        given = boxes_per_image(boxes, len(boxes))
        per_image = [image for image in given if image is not None]
        if len(per_image) < len(given):
            raise ValueError("boxes must be given for every image, those that the processor was given.")
        flat = np.concatenate([np.empty((0, 4)), *per_image])
        crops = crop_box_from_box(flat, self.extend_top, self.extend_bottom)
        indices = np.repeat(np.arange(len(per_image)), [len(image) for image in per_image])
        results = self.post_process_keypoint_detection(outputs, crops, flat, indices, len(per_image))
        for face in (face for image in results for face in image):
            kept = torch.arange(len(face["scores"]))
            if threshold is not None:
                kept = kept[face["scores"] > threshold]
            face.update(keypoints=face["keypoints"][kept], scores=face["scores"][kept], labels=kept)
        return results


def _check_given(num_faces: int, num_images: int, given: dict[str, Any]) -> None:
    """Refuse what belongs to other faces than the model's outputs."""
    for name, value in given.items():
        if len(value) != num_faces:
            raise ValueError(f"outputs hold {num_faces} faces, {name} {len(value)}: give those of the same call.")
    if not all(0 <= index < num_images for index in given["image_indices"]):
        raise ValueError(f"image_indices must lie in 0..{num_images - 1}, got {given['image_indices']}.")


__all__ = ["FabRecImageProcessorKwargs", "FaceBatch", "FaceCropProcessor", "Normalization"]
