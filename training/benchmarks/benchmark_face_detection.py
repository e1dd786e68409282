"""Measure a face detector on labeled faces, and fit its boxes to the tight boxes of the landmarks.

    python training/benchmarks/benchmark_face_detection.py --train 300w/train.parquet --test 300w/test.parquet

The correction of `fabrec_hf.model.face_detection` is printed as the raw detector gives it: fitted on a seeded draw of
training faces, scored on all test faces. A face counts as found when a detection has an IoU of at least 0.4 with its
landmark box. Detections that miss it are counted too; they are mostly other people in the picture.
"""

import argparse
import io
import json
import time
from collections.abc import Iterator

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from fabrec_hf.model import close_look, face_detection
from fabrec_hf.model.geometry import box_overlap


FOUND_IOU = 0.4


def read_faces(path: str, count: int | None = None, seed: int = 0) -> Iterator[tuple[Image.Image, np.ndarray]]:
    """Yield pictures and their landmark boxes (x, y, width, height).

    Args:
        path: parquet with the columns `image` (encoded bytes) and `box`.
        count: how many rows to draw; all of them if None.
        seed: of the draw.
    """
    table = pq.read_table(path, columns=["image", "box"])
    rows = np.arange(table.num_rows)
    if count is not None:
        rows = np.sort(np.random.default_rng(seed).permutation(rows)[:count])
    for row in rows:
        face = table.slice(int(row), 1).to_pylist()[0]
        yield Image.open(io.BytesIO(face["image"]["bytes"])), np.asarray(face["box"], dtype=float)


def raw_box(box) -> np.ndarray:
    """Undo the correction: the box as the network gave it."""
    x, y, width, height = box
    raw_width, raw_height = width / close_look.SIZE_RATIO[0], height / close_look.SIZE_RATIO[1]
    center_x = x + width / 2 - close_look.CENTER_SHIFT[0] * raw_width
    center_y = y + height / 2 - close_look.CENTER_SHIFT[1] * raw_height
    return np.array([center_x - raw_width / 2, center_y - raw_height / 2, raw_width, raw_height])


def fit(detector: face_detection.FaceDetector, path: str, count: int, seed: int) -> dict:
    """Return the median shift of the center and ratio of the size that take raw boxes to landmark boxes."""
    fits = []
    for image, truth in read_faces(path, count, seed):
        boxes = [raw_box(found.box) for found in detector(image)]
        best = max(boxes, key=lambda box: box_overlap(box, truth), default=None)
        if best is not None and box_overlap(best, truth) > 0.3:
            shift = (truth[:2] + truth[2:] / 2 - best[:2] - best[2:] / 2) / best[2:]
            fits.append(np.concatenate([shift, truth[2:] / best[2:]]))
    median = np.median(fits, axis=0).round(4).tolist()
    return {"center_shift": median[:2], "size_ratio": median[2:], "faces": len(fits)}


def score(detector: face_detection.FaceDetector, path: str) -> dict:
    """Return recall, IoU with raw and corrected boxes, detections elsewhere, and the time a picture."""
    raw, corrected, milliseconds, elsewhere = [], [], [], 0
    for image, truth in read_faces(path):
        image.load()
        start = time.perf_counter()
        found = detector(image)
        milliseconds.append(1e3 * (time.perf_counter() - start))
        ious = [box_overlap(face.box, truth) for face in found]
        corrected.append(max(ious, default=0.0))
        raw.append(max((box_overlap(raw_box(face.box), truth) for face in found), default=0.0))
        elsewhere += sum(value < 0.1 for value in ious)
    return {
        "faces": len(corrected),
        "recall": float(np.mean(np.array(corrected) >= FOUND_IOU)),
        "recall_raw": float(np.mean(np.array(raw) >= FOUND_IOU)),
        "mean_iou_raw": round(float(np.mean(raw)), 4),
        "mean_iou": round(float(np.mean(corrected)), 4),
        "detections_elsewhere": int(elsewhere),
        "median_milliseconds": round(float(np.median(milliseconds)), 1),
    }


def main() -> None:
    """Parse the arguments, measure, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", required=True, help="parquet to fit the box correction on")
    parser.add_argument("--test", required=True, help="parquet to score")
    parser.add_argument("--count", type=int, default=300, help="training faces to fit on (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the draw of training faces (default: %(default)s)")
    parser.add_argument("--score-threshold", type=float, default=0.8, help="(default: %(default)s)")
    arguments = parser.parse_args()
    detector = face_detection.YuNetFaceDetector(arguments.score_threshold)
    result = {"fit": fit(detector, arguments.train, arguments.count, arguments.seed)}
    print(json.dumps(result | {"test": score(detector, arguments.test)}, indent=2))


if __name__ == "__main__":
    main()
