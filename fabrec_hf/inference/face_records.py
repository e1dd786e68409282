"""What was found in a picture or a frame, as plain data for JSON and as a line for people."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


__all__ = ["count_faces", "describe_picture", "face_record", "picture_record"]


def face_record(box: Any, keypoints: Any, scores: Any) -> dict[str, Any]:
    """Return a face as lists of rounded numbers; a landmark that was left out is null."""
    return {
        "bbox": _rounded(box, 2),
        "keypoints": [
            None if any(math.isnan(value) for value in point) else point for point in _rounded(keypoints, 2)
        ],
        "scores": _rounded(scores, 4),
    }


def picture_record(
    path: Path, size: tuple[int, int], faces: Sequence[Mapping[str, Any]], model: str, scheme: str | None
) -> dict[str, Any]:
    """Return what was found in a picture of (width, height)."""
    return {
        "image": str(path),
        "width": size[0],
        "height": size[1],
        "model": model,
        "scheme": scheme,
        "faces": [face_record(face["bbox"], face["keypoints"], face["scores"]) for face in faces],
    }


def describe_picture(record: Mapping[str, Any], overlay: Path | None) -> str:
    """Return the line that tells a person what was found in a picture."""
    scores = [score for face in record["faces"] for score in face["scores"]]
    line = f"{record['image']}: {count_faces(len(record['faces']))}, mean score {sum(scores) / len(scores):.2f}"
    return f"{line} -> {overlay}" if overlay else line


def count_faces(count: int) -> str:
    """Return "1 face" or "2 faces"."""
    return f"{count} face{'s' if count != 1 else ''}"


def _rounded(values: Any, digits: int) -> list:
    return np.round(np.asarray(values, dtype=np.float64), digits).tolist()
