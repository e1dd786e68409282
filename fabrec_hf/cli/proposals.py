"""The faces that `fabrec detect` finds, as proposals in the form of an annotation tool."""

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..common.output_folder import write_files
from ..errors import FabRecError


if TYPE_CHECKING:
    from ..data.formats.annotated import PictureToWrite
    from ..inference.landmark_finder import LandmarkFinder

__all__ = ["check_points", "check_proposals", "write_proposals"]

_FILES = {
    "cvat": "annotations.xml",
    "dlib": "faces.xml",
    "labelstudio": "tasks.json",
    "via": "via_project.json",
    "wflw": "list_98pt_rect_attr.txt",
}
"""The file with all annotations of a form; labelme has one a picture, and `.pts` files are one a face."""

_BY_STEM = {"labelme": ".json", "pts": ".pts"}


def check_proposals(tool: str, output: Path | None, paths: Sequence[Path], labels: str | None) -> None:
    """Refuse proposals that cannot be written, or would overwrite annotations, before anything is computed.

    Raises:
        FabRecError: If so.
    """
    from ..inference.input_files import is_video

    if output is None:
        raise FabRecError("--to is a form of files: say where to write them with --output DIR.")
    if labels:
        raise FabRecError("--draw-names and --draw-index are for drawings, and --to writes none.")
    if any(map(is_video, paths)):
        raise FabRecError("--to is for pictures: take frames out of videos first.")
    stems = [path.stem for path in paths]
    if tool in _BY_STEM and len(set(stems)) < len(stems):
        twice = next(stem for stem in stems if stems.count(stem) > 1)
        raise FabRecError(f"Two pictures are called {twice}, and {tool} tells them by this name; rename one.")
    if tool == "pts" and len({path.absolute().parent for path in paths}) > 1:
        raise FabRecError("--to pts is for the pictures of one folder, which is where they are looked for again.")
    if tool == "wflw":
        from ..data.formats.wflw_writer import check_wflw_pictures

        folder = _common_folder(paths)
        check_wflw_pictures([path.absolute().relative_to(folder).as_posix() for path in paths])
    names = [f"{stem}{_BY_STEM[tool]}" for stem in stems] if tool in _BY_STEM else [_FILES[tool]]
    if tool == "pts":  # of a picture with several faces they are numbered
        names += [f"{stem}_1.pts" for stem in stems]
    taken = next((output / name for name in names if (output / name).exists()), None)
    if taken:
        raise FabRecError(f"{taken} exists already, and may have been corrected; name another folder.")


def check_points(tool: str, num_landmarks: int, min_score: float | None) -> None:
    """Refuse the points of a detector that a form cannot hold.

    Raises:
        FabRecError: If so.
    """
    if tool != "wflw":
        return
    from ..data.formats.wflw_writer import check_wflw_points

    check_wflw_points(num_landmarks)
    if min_score:
        raise FabRecError("The lists of WFLW hold whole faces alone: leave out --min-score.")


def write_proposals(tool: str, output: Path, records: Sequence[Mapping[str, Any]], finder: "LandmarkFinder") -> str:
    """Write what was found in pictures for a tool.

    Args:
        tool: One of `PROPOSALS`.
        output: Where to write.
        records: What `picture_record` says of each picture with a face.
        finder: What has found the faces.

    Returns:
        What was written, and how the tool is started on it.

    Raises:
        FabRecError: If the folder cannot be written to.
    """
    from ..data.formats.tool_writer import setup_files, tool_files
    from ..model.known_schemes import LandmarkScheme

    scheme = finder.scheme or LandmarkScheme("custom", finder.num_landmarks)
    folder = _common_folder([Path(record["image"]) for record in records])
    pictures = [_picture(record, folder, with_boxes=tool != "cvat") for record in records]
    place = folder.name if tool == "labelstudio" else os.path.relpath(folder, output).replace(os.sep, "/")
    files = tool_files(tool, pictures, scheme, place, finder.name)
    write_files(output, files | setup_files(tool, scheme, boxes=False))
    faces = sum(len(picture.faces) for picture in pictures)
    return f"{faces} faces of {len(pictures)} pictures -> {output}. {_advice(tool, output, folder)}"


def _common_folder(paths: Sequence[Path]) -> Path:
    """Return the folder that all pictures are below."""
    return Path(os.path.commonpath([path.absolute().parent for path in paths]))


def _picture(record: Mapping[str, Any], folder: Path, with_boxes: bool) -> "PictureToWrite":
    """Return a picture to write; the box of a turned face is turned, which tools know no rectangle for."""
    import numpy as np

    from ..data.formats.annotated import FaceToWrite, PictureToWrite

    path = Path(record["image"]).absolute()
    faces = []
    for face in record["faces"]:
        if face.get("is_face", True):
            points = np.array([point or (np.nan, np.nan) for point in face["keypoints"]], dtype=np.float32)
            box = face["bbox"] if with_boxes and "roll" not in face else None
            faces.append(FaceToWrite(points, [True] * len(points), box, face["scores"]))
    size = (record["width"], record["height"])
    return PictureToWrite(path.relative_to(folder).as_posix(), size, path.stat().st_size, faces)


def _advice(tool: str, output: Path, pictures: Path) -> str:
    """Say how the tool is started on the proposals."""
    if tool == "cvat":
        return (
            "In CVAT paste cvat_labels.json as the raw labels of a task with these pictures, then upload "
            'annotations.xml as "CVAT 1.1".'
        )
    if tool == "labelme":
        words = ["labelme", str(pictures), "--output", str(output), "--labels", str(output / "labels.txt")]
        return f"Run: {shlex.join(words)}"
    if tool == "dlib":
        return f"Run: {shlex.join(['imglab', str(output / 'faces.xml')])}"
    if tool == "pts":
        words = ["fabrec", "fit", str(pictures), "--annotations", str(output)]
        return f"After the correction: {shlex.join(words)} --output DETECTOR"
    if tool == "wflw":
        return f"The pictures are named from {pictures}, which programs that read such lists call WFLW_images."
    if tool == "via":
        return f"In VIA open {output / 'via_project.json'}."
    return (
        "Paste labelstudio_interface.xml as the labeling interface of a Label Studio project and import tasks.json; "
        f"its local files have the root {pictures.parent} and a storage {pictures}."
    )
