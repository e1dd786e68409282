"""From annotated photographs of a session to a detector: which faces to annotate, learn, propose, show, hand out."""

import copy
import io
import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import datasets
import numpy as np
import torch
from PIL import Image

from ..data.formats.coco_writer import export_coco
from ..data.formats.pts import export_pts
from ..data.scheme_files import write_scheme
from ..data.source import face_features
from ..errors import DataError
from ..inference.drawing import draw_landmarks
from ..inference.landmark_finder import LandmarkFinder
from ..learning.anchors import load_start
from ..learning.fewshot import (
    FitOptions,
    FitProgress,
    choose_faces,
    fit_landmarks,
    fit_recipe,
)
from ..learning.fit_result import FitResult, describe_fit
from ..learning.labeled_faces import LabeledFaces
from ..learning.landmark_training import build_model, build_processor
from ..model.geometry import crop_box_from_box, landmarks_from_crop, landmarks_to_crop
from ..model.landmark_reading import read_landmarks
from ..model.modeling_fabrec import FabRecForLandmarkDetection
from .annotation import AnnotatedFace, Project
from .annotation_view import SIDE, crop_of, cut_face
from .models import ModelShelf
from .sessions import Session


__all__ = [
    "Proposer",
    "ResultFace",
    "annotation_files",
    "draw_results",
    "find_session_faces",
    "labeled_dataset",
    "rank_faces",
    "teach",
    "zip_folder",
]

# Steps that a detector takes with each face that is completed, to propose positions in the next one.
PROPOSAL_EFFORT = 0.075
RESULT_SIDE = 320


def find_session_faces(
    session: Session,
    photographs: Sequence[tuple[str, str]],
    finder: LandmarkFinder,
    on_photograph: Callable[[int], None] | None = None,
) -> list[AnnotatedFace]:
    """Find the faces of new photographs; the whole photograph stands for one in which there is none.

    Args:
        session: Whose they are.
        photographs: (file, name) of each.
        finder: For its face detector.
        on_photograph: Called with the number of photographs that are done.
    """
    found: list[AnnotatedFace] = []
    for number, (file, name) in enumerate(photographs, start=1):
        image = session.photograph(AnnotatedFace(file, name, (0, 0, 1, 1)))
        boxes = [tuple(map(float, box)) for box in finder.detect(image)[: session.limits.faces]]
        for box in boxes or [(0.0, 0.0, float(image.width), float(image.height))]:
            found.append(AnnotatedFace(file, name, box))  # type: ignore[arg-type]
        if on_photograph:
            on_photograph(number)
    return found


@torch.inference_mode()
def rank_faces(session: Session, shelf: ModelShelf, count: int) -> list[int]:
    """Choose the faces that stand for all others, the most useful first: rows of the project."""
    faces = session.project.faces
    if not faces:
        raise DataError("Add photographs first.")
    processor = build_processor(None, shelf.autoencoder.config.image_size)
    latents = []
    for face in faces:
        pixel_values = processor(session.photograph(face), boxes=[list(face.box)])["pixel_values"]
        latents.append(shelf.autoencoder.encode(pixel_values.to(shelf.autoencoder.device)).cpu())
    return choose_faces(torch.cat(latents), min(count, len(faces)))


def labeled_dataset(project: Project, folder: Path, rows: Sequence[int] | None = None) -> datasets.Dataset:
    """Return the annotated faces as every part of the package takes them.

    Args:
        project: The annotations.
        folder: Of the photographs.
        rows: Which faces; all annotated ones by default.

    Raises:
        DataError: If nothing is annotated.
    """
    rows = project.annotated if rows is None else list(rows)
    if not rows:
        raise DataError("Annotate at least one face first.")
    faces = [project.faces[row] for row in rows]
    columns: dict[str, list[Any]] = {
        "image": [{"path": str(folder / face.file), "bytes": None} for face in faces],
        "landmarks": [face.landmarks().tolist() for face in faces],
        "box": [list(face.box) for face in faces],
        "name": [Path(face.name).stem for face in faces],
        "picture": [face.name for face in faces],
    }
    features = face_features(len(project.names))
    kept = datasets.Features({name: features[name] for name in columns})
    return datasets.Dataset.from_dict(columns, features=kept)


def teach(
    session: Session,
    autoencoder: str,
    effort: float,
    on_step: Callable[[FitProgress], None],
    should_stop: Callable[[], bool],
) -> FitResult:
    """Fit a detector to the annotated faces, and keep it in the session.

    Args:
        session: Whose faces; only looked at while its lock is held.
        autoencoder: What to start from.
        effort: Multiplies the number of steps.
        on_step: Called after every step.
        should_stop: Asked before every step.

    Raises:
        DataError: If nothing is annotated.
    """
    with session.lock:
        project = session.project
        scheme, dataset = project.scheme, labeled_dataset(project, session.photographs)
    recipe, model, faces, processor = _prepare(autoencoder, scheme, dataset, effort)
    options = FitOptions(on_step=on_step, should_stop=should_stop)
    result = fit_landmarks(model, faces, scheme, recipe, options)
    results = describe_fit(result, scheme, recipe, autoencoder, folds=1)
    if session.project is not project:  # its person started over
        return result
    with TemporaryDirectory(prefix=".fitting-", dir=session.folder) as place:
        draft = Path(place) / "detector"
        model.save_pretrained(draft)
        processor.save_pretrained(draft)
        (draft / "fit.json").write_text(json.dumps(results, indent=2) + "\n")
        with session.lock:
            if session.project is project:
                if session.detector.exists():
                    session.detector.rename(Path(place) / "old")
                draft.rename(session.detector)
    return result


def _prepare(
    autoencoder: str, scheme: Any, dataset: datasets.Dataset, effort: float, instant: bool = False
) -> tuple[Any, ...]:
    start = load_start(autoencoder)
    recipe = fit_recipe(start, len(dataset), effort=effort)
    if instant and recipe.anchors:
        recipe = replace(recipe, local_refinement=False)  # which takes seconds
    processor = build_processor(None, start.config.image_size)
    faces = LabeledFaces(dataset, processor, progress=False)
    return recipe, build_model(start, scheme, recipe), faces, processor


class Proposer:
    """Learns along while a person annotates, and proposes where the points of the next face are.

    A start from a detector tells the points from the detector's own, from the first face on. A start from an
    autoencoder learns a little more with each completed face; until it has learned for the first time, the mean shape
    of the annotated faces is proposed.

    Args:
        session: Whose faces.
        autoencoder: What to start from.
    """

    def __init__(self, session: Session, autoencoder: str):
        self._session, self._autoencoder = session, autoencoder
        self._model: FabRecForLandmarkDetection | None = None
        self.names: tuple[str, ...] = session.project.names
        self.learned_from = 0
        self.adopted = False

    def adopt(self, model: FabRecForLandmarkDetection, learned_from: int) -> None:
        """Propose from now on what a detector finds.

        Args:
            model: A detector of the same points, in eval mode; it is not changed.
            learned_from: Faces that it learned from.
        """
        self._model, self.learned_from, self.adopted = model, learned_from, True

    def learn(self, on_step: Callable[[FitProgress], None], should_stop: Callable[[], bool]) -> FitResult:
        """Learn from all faces that are annotated so far; the model that proposes meanwhile stays as it is."""
        with self._session.lock:
            project = self._session.project
            rows = [row for row in project.annotated if project.faces[row].complete]
            scheme, dataset = project.scheme, labeled_dataset(project, self._session.photographs, rows)
        recipe, model, faces, _ = _prepare(self._autoencoder, scheme, dataset, PROPOSAL_EFFORT, instant=True)
        instant = model.point_regression is not None  # right from the first face on, and done at once
        if self._model is not None and not instant:
            model.load_state_dict(copy.deepcopy(self._model.state_dict()))
        options = FitOptions(folds=0, instant=instant, on_step=on_step, should_stop=should_stop)
        result = fit_landmarks(model, faces, scheme, recipe, options)
        if not result.stopped:
            self._model, self.learned_from = model.eval(), len(rows)
        return result

    def propose(self, face: AnnotatedFace, image: Image.Image) -> np.ndarray | None:
        """Return (L, 2) positions in pixels of the photograph; None as long as nothing is annotated."""
        if self._model is not None:
            processor = build_processor(None, self._model.config.image_size)
            return read_landmarks(self._model, processor, [image], [[face.box]], second_look=False).points[0]
        project = self._session.project
        rows = [row for row in project.annotated if project.faces[row].complete]
        if not rows:
            return None
        known = [project.faces[row] for row in rows]
        shapes = landmarks_to_crop(
            np.stack([other.landmarks() for other in known]), crop_box_from_box([list(other.box) for other in known])
        )
        placed = np.isfinite(shapes)
        total = np.where(placed, shapes, 0).sum(axis=0)
        mean = np.divide(total, placed.sum(axis=0), out=np.full_like(total, np.nan), where=placed.any(axis=0))
        return landmarks_from_crop(mean, crop_box_from_box(list(face.box)))


@dataclass(frozen=True)
class ResultFace:
    """What a detector finds in a face that it was not taught on.

    Attributes:
        row: Of the face in the project.
        picture: The face enlarged, with its landmarks.
        score: Mean score of the landmarks.
        name: Of the photograph.
    """

    row: int
    picture: Image.Image
    score: float
    name: str


def draw_results(session: Session, finder: LandmarkFinder, count: int) -> list[ResultFace]:
    """Draw what a detector finds in faces that it was not taught on, the most doubtful first.

    Args:
        session: Whose faces.
        finder: The detector.
        count: How many faces are looked at.
    """
    project = session.project
    taught = set(project.annotated)
    rows = [row for row in range(len(project.faces)) if row not in taught][:count]
    found = []
    for row in rows:
        face = project.faces[row]
        landmarks = finder.find([session.photograph(face)], [[face.box]])[0][0]
        points = crop_of(face.box).from_photograph(landmarks["keypoints"].numpy()) * (RESULT_SIDE / SIDE) - 0.5
        tile = cut_face(session.photograph(face), face.box, RESULT_SIDE)
        drawn = {"keypoints": points, "scores": landmarks["scores"], "bbox": (0, 0, RESULT_SIDE, RESULT_SIDE)}
        picture = draw_landmarks(tile, [drawn], finder.scheme, draw_boxes=False)
        found.append(ResultFace(row, picture, float(landmarks["scores"].mean()), face.name))
    return sorted(found, key=lambda face: face.score)


def annotation_files(project: Project, photographs: Path) -> dict[str, bytes]:
    """Return the annotations as archives by the name of the file: COCO keypoints, .pts files, and the scheme.

    Raises:
        DataError: If nothing is annotated.
    """
    dataset = labeled_dataset(project, photographs)
    with TemporaryDirectory() as place:
        coco, pts = Path(place) / "coco", Path(place) / "pts"
        export_coco(dataset, project.scheme, coco, "train")
        export_pts(dataset, pts)
        for folder in (coco, pts):
            write_scheme(project.scheme, folder / "scheme.yaml")
        return {"annotations-coco.zip": zip_folder(coco), "annotations-pts.zip": zip_folder(pts)}


def zip_folder(folder: Path) -> bytes:
    """Return the files of a folder as an archive."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder).as_posix())
    return content.getvalue()
