"""The same photographs with several checkpoints, and the checkpoints that visitors bring."""

import io
import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ..checkpoints.weight_files import INDEX_NAME, SHARD_NAME, WEIGHTS_NAME, shard_names
from ..data.formats.pts import read_pts
from ..errors import CheckpointError, DataError
from ..inference.drawing import face_tile, tile_points
from ..inference.landmark_finder import LandmarkFinder
from ..metrics import normalized_mean_error
from ..model.image_inputs import Picture
from .uploads import Photograph, Uploads


__all__ = ["Comparison", "compare", "read_checkpoint", "read_labels"]

DESCRIPTIONS = ("config.json", "preprocessor_config.json")
# The largest that a visitor's model may be; the paper's own takes 256-px crops and has 512 channels.
LARGEST = {"image_size": 512, "num_landmarks": 500, "latent_size": 1024, "encoder_depth": 4, "heatmap_size": 512}
LARGEST_WIDTH = 1024
# Side of a drawn face in pixels, radius of the ring about a point that differs, and how far it does as a share of the
# face.
TILE, RING, DIFFERING = 512, 11, 0.05
LARGEST_CHECKPOINT = 200 * 2**20


@dataclass
class Comparison:
    """What several checkpoints find in the same photographs.

    Attributes:
        pictures: (drawing, caption) photograph by photograph, checkpoint by checkpoint.
        errors: NME in percent, (photographs, checkpoints), NaN without labels of that many points.
        names: Of the checkpoints.
        photographs: Names of the photographs.
        normalizers: What errors were divided by, of each checkpoint.
    """

    names: list[str]
    photographs: list[str]
    errors: np.ndarray
    pictures: list[tuple[Image.Image, str]] = field(default_factory=list)
    normalizers: list[str] = field(default_factory=list)

    def table(self) -> list[list[Any]]:
        """Return a row a photograph and one of the means, a column a checkpoint; empty without any error."""
        if not np.isfinite(self.errors).any():
            return []
        rows = [[name, *map(_shown, errors)] for name, errors in zip(self.photographs, self.errors, strict=True)]
        means = [
            float(column[np.isfinite(column)].mean()) if np.isfinite(column).any() else np.nan
            for column in self.errors.T
        ]
        return [*rows, ["mean", *map(_shown, means)]]


# What zipfile raises of an archive that is no archive, is encrypted or packed by a method that it does not know (both
# RuntimeError), ends too early (EOFError) or holds damaged data (zlib.error, or OSError where an entry is misplaced).
UNREADABLE_ARCHIVE = (zipfile.BadZipFile, RuntimeError, EOFError, OSError, zlib.error)


def compare(
    photographs: Sequence[Photograph],
    finders: Mapping[str, LandmarkFinder],
    labels: Mapping[str, np.ndarray] | None = None,
) -> Comparison:
    """Find the landmarks of the largest face of every photograph with every checkpoint.

    Args:
        photographs: At their full size where there are labels.
        finders: The checkpoints by the name to show.
        labels: (L, 2) points in pixels of the file, by the stem of the photograph's name.
    """
    names, labels = list(finders), labels or {}
    comparison = Comparison(
        names, [photo.name for photo in photographs], np.full((len(photographs), len(names)), np.nan)
    )
    for finder in finders.values():
        kind = finder.scheme.normalizer if finder.scheme else None
        comparison.normalizers.append(
            "the face box" if kind is None or kind.kind != "points" else "the scheme's distance between points"
        )
    for row, photo in enumerate(photographs):
        truth = labels.get(Path(photo.name).stem)
        first: Mapping[str, Any] | None = None
        pixels = Picture(photo.image)
        for column, (name, finder) in enumerate(finders.items()):
            # Each model has boxes of its own convention for the same face.
            boxes = finder.detect(pixels)
            if truth is not None and len(boxes) > 1:
                boxes = sorted(boxes, key=lambda box: -_points_inside(box, truth / photo.scale))
            faces = finder.find([pixels], [boxes[:1]])[0]
            error = _error(faces[0], truth, finder, photo.scale) if faces else np.nan
            comparison.errors[row, column] = error
            picture = photo.image.copy()
            picture.thumbnail((TILE, TILE))
            if faces:
                first = faces[0] if first is None else first
                picture = _draw(pixels, faces[0], first, finder)
            caption = f"{name}: no face" if not faces else name if np.isnan(error) else f"{name}: {error:.2f} %"
            comparison.pictures.append((picture, f"{photo.name} · {caption}"))
    return comparison


def differing_points(face: Mapping[str, Any], other: Mapping[str, Any]) -> np.ndarray:
    """Return (L,) which points of a face lie elsewhere than another checkpoint has them; none if it has others.

    Args:
        face: `keypoints` in pixels and `bbox`, whose longer side distances are measured by.
        other: The same of the other checkpoint.
    """
    points, others = (np.asarray(each["keypoints"], dtype=np.float64) for each in (face, other))
    if points.shape != others.shape:
        return np.zeros(len(points), dtype=bool)
    side = float(np.asarray(other["bbox"], dtype=np.float64)[2:].max())
    return np.linalg.norm(points - others, axis=1) > DIFFERING * side


def _draw(image: Picture, face: Mapping[str, Any], first: Mapping[str, Any], finder: LandmarkFinder) -> Image.Image:
    """Draw a face enlarged, with rings about the points that the first checkpoint has elsewhere."""
    # The same cut for all checkpoints.
    picture = face_tile(image, {**face, "bbox": first["bbox"]}, TILE, finder.scheme)
    pen = ImageDraw.Draw(picture)
    points = tile_points(face["keypoints"], first["bbox"], TILE)
    for x, y in points[differing_points(face, first)] + 0.5:
        for extent, color, width in ((RING + 1, (20, 20, 30), 4), (RING, (255, 255, 255), 2)):
            pen.ellipse((x - extent, y - extent, x + extent, y + extent), outline=color, width=width)
    return picture


def _error(face: Mapping[str, Any], truth: np.ndarray | None, finder: LandmarkFinder, scale: float) -> float:
    points = np.asarray(face["keypoints"], dtype=np.float64)
    if truth is None or finder.scheme is None or truth.shape != points.shape:
        return np.nan
    found = (points + 0.5) * scale - 0.5
    box = np.asarray(face["bbox"], dtype=np.float64) * scale
    return float(normalized_mean_error(found[None], truth[None], finder.scheme.normalizer, box[None])[0])


def _points_inside(box: Sequence[float], points: np.ndarray) -> int:
    x, y, width, height = box
    inside = (points >= (x, y)) & (points <= (x + width, y + height))
    return int(inside.all(axis=1).sum())


def _shown(error: float) -> str:
    return f"{error:.2f} %" if np.isfinite(error) else ""


def read_labels(paths: Sequence[Path], from_one: bool) -> dict[str, np.ndarray]:
    """Read `.pts` files, which were checked to be uploads, by their stem.

    Args:
        paths: The files.
        from_one: Whether their first pixel is (1, 1), as in the downloads of 300-W.

    Raises:
        DataError: If one is malformed.
    """
    labels = {}
    for path in paths:
        try:
            labels[path.stem] = read_pts(path, origin=int(from_one))
        except DataError as error:  # its message names a path of the server
            raise DataError(str(error).replace(str(path), path.name)) from None
    return labels


def read_checkpoint(paths: Sequence[str], uploads: Uploads) -> tuple[str, dict[str, bytes]]:
    """Read an uploaded checkpoint: its files, or one archive that holds them. Nothing of it is executed.

    Args:
        paths: The uploads.
        uploads: Where they may lie.

    Returns:
        A name for it, and the content of its files.

    Raises:
        CheckpointError: If a file is missing, too large, or says that the model is larger than this server takes.
        ImageError: If a path is no upload.
    """
    checked = [uploads.check(path) for path in paths]
    archives = [path for path in checked if path.suffix.lower() == ".zip"]
    if archives:
        files, name = _from_archive(archives[0]), archives[0].stem
    else:
        files = {path.name: path.read_bytes() for path in checked if _belongs(path.name)}
        weights = sum(len(content) for entry, content in files.items() if entry not in DESCRIPTIONS)
        name = f"checkpoint of {weights:,} bytes"
    missing = _missing(files)
    if missing:
        # A delta would have this server load what it names.
        raise CheckpointError(
            f"The checkpoint lacks {', '.join(missing)}: send its folder, or a zip of it; deltas are not taken."
        )
    _check_size(files["config.json"])
    return name, files


def _belongs(name: str) -> bool:
    return name in (*DESCRIPTIONS, WEIGHTS_NAME, INDEX_NAME) or SHARD_NAME.fullmatch(name) is not None


def _missing(files: Mapping[str, bytes]) -> list[str]:
    """Name the files that a checkpoint still needs: weights are one file, or an index and the shards that it names."""
    needed = [WEIGHTS_NAME]
    if WEIGHTS_NAME not in files and INDEX_NAME in files:
        try:
            needed = shard_names(files[INDEX_NAME])
        except CheckpointError as error:
            raise CheckpointError(f"{INDEX_NAME} is no index of shards.") from error
    return [entry for entry in (*DESCRIPTIONS, *needed) if entry not in files]


def _from_archive(path: Path) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    left = LARGEST_CHECKPOINT
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                name = entry.filename.rpartition("/")[2]
                if _belongs(name) and name not in files:
                    if entry.file_size > left:
                        raise CheckpointError(f"The checkpoint is larger than {LARGEST_CHECKPOINT // 2**20} MB.")
                    with archive.open(entry) as stream:  # what the archive says of the size may be untrue
                        files[name] = stream.read(left)
                    left -= len(files[name])
    except UNREADABLE_ARCHIVE as error:
        raise CheckpointError(
            "This zip archive cannot be read: it is damaged, encrypted or packed by an unusual method. Make it again "
            "with an ordinary zip program."
        ) from error
    return files


def _check_size(content: bytes) -> None:
    """Refuse a configuration that asks for more than this server has."""
    try:
        values = json.load(io.BytesIO(content))
        widths = values.get("widths", [])
        known = {key: values[key] for key in LARGEST if values.get(key) is not None}
        too_large = [key for key, value in known.items() if not 0 < int(value) <= LARGEST[key]]
        too_large += (
            ["widths"] if len(widths) > 8 or any(not 0 < int(width) <= LARGEST_WIDTH for width in widths) else []
        )
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError("config.json is not that of a landmark model.") from error
    if too_large:
        raise CheckpointError(f"The model is larger than this server takes: {', '.join(too_large)}.")
