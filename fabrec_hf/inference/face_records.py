"""What was found in a picture or a frame, as plain data for JSON and as a line for people."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


__all__ = ["count_faces", "describe_picture", "face_record", "picture_record", "picture_table"]


def face_record(
    box: Any, keypoints: Any, scores: Any, roll: float = 0.0, is_face: bool = True, expected_errors: Any = None
) -> dict[str, Any]:
    """Return a face as lists of rounded numbers; a landmark that was left out is null.

    A box that is turned about its middle is followed by `roll`, its degrees clockwise, and one in which there is no
    face by `is_face`, false. `expected_errors` are there where they are known, in pixels.
    """
    return {
        "bbox": _rounded(box, 2),
        **({"roll": round(float(roll), 1)} if roll else {}),
        **({} if is_face else {"is_face": False}),
        "keypoints": [
            None if any(math.isnan(value) for value in point) else point for point in _rounded(keypoints, 2)
        ],
        "scores": _rounded(scores, 4),
        **({} if expected_errors is None else {"expected_errors": _rounded(expected_errors, 2)}),
    }


def picture_record(
    path: Path,
    size: tuple[int, int],
    faces: Sequence[Mapping[str, Any]],
    model: str,
    scheme: str | None,
    point_names: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Return what was found in a picture of (width, height); `point_names` are None where the model has none."""
    return {
        "image": str(path),
        "width": size[0],
        "height": size[1],
        "model": model,
        "scheme": scheme,
        "point_names": None if point_names is None else list(point_names),
        "faces": [
            face_record(
                face["bbox"],
                face["keypoints"],
                face["scores"],
                face.get("roll", 0.0),
                bool(face.get("is_face", True)),
                face.get("expected_errors"),
            )
            for face in faces
        ],
    }


def picture_table(record: Mapping[str, Any]) -> str:
    """Return a picture's record as CSV: a line a landmark, with its name.

    x and y are empty where it was left out, and the expected error in pixels where it is not known.
    """
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["face", "point", "name", "x", "y", "score", "expected_error"])
    names = record["point_names"]
    for number, face in enumerate(record["faces"], start=1):
        errors = face.get("expected_errors") or [""] * len(face["scores"])
        for index, (point, score, error) in enumerate(zip(face["keypoints"], face["scores"], errors, strict=True)):
            name = names[index] if names else ""
            writer.writerow([number, index, name, *(point or ("", "")), score, error])
    return table.getvalue()


def describe_picture(record: Mapping[str, Any], overlay: Path | None) -> str:
    """Return the line that tells a person what was found in a picture."""
    scores = [score for face in record["faces"] for score in face["scores"]]
    line = f"{record['image']}: {count_faces(len(record['faces']))}, mean score {sum(scores) / len(scores):.2f}"
    for number, face in enumerate(record["faces"], start=1):
        if not face.get("is_face", True):
            line += f"; box {number} shows no face, its landmarks mean nothing"
    return f"{line} -> {overlay}" if overlay else line


def count_faces(count: int) -> str:
    """Return "1 face" or "2 faces"."""
    return f"{count} face{'s' if count != 1 else ''}"


def _rounded(values: Any, digits: int) -> list:
    return np.round(np.asarray(values, dtype=np.float64), digits).tolist()
