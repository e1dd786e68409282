"""What the `evaluate` modules in the folders beside this file share: their inputs, and the way to the plain functions.

Only they import it, so that the plain functions need no `evaluate`.
"""

import abc
from dataclasses import dataclass
from typing import Any

import datasets
import evaluate
import numpy as np

from ..common.citation import CITATION
from ..errors import BoxError, DataError, SchemeError
from ..model.known_schemes import LandmarkScheme
from .landmark_errors import count_missing, mean_of_known, part_errors, point_errors, summarize_errors
from .normalizers import NormalizerLike, SchemeLike, as_scheme, named_normalizer


__all__ = ["CITATION", "FACE_ARGUMENTS", "FACE_COUNTS", "FaceModule", "LandmarkModule", "ScoredFaces", "check_points"]

FACE_ARGUMENTS = """
    predictions: (N, L, 2) points in pixels. A face of NaNs is one without a prediction: it counts as a failure.
    references: (N, L, 2) annotated points in pixels. A NaN point is left out, and counted.
    boxes: (N, 4) face boxes (x, y, width, height) in pixels, for schemes and normalizers that measure the box.
    scheme: "300w" (if none is given), "wflw", "aflw", "mtfl", or a scheme as `LandmarkScheme.to_dict` writes it.
    normalizer: The length to divide by, instead of the scheme's own: "inter_ocular", "inter_pupil", "box",
        "box_diagonal", two points by name or index such as [36, 45], or a mapping with its kind."""

FACE_COUNTS = """
    count: faces scored. without_prediction: those of them without any point. not_scored: faces left out, as they have
    no annotated point or no length to divide by. points: all of them. points_not_annotated: those missing in the
    references. points_without_prediction: those missing in the predictions only."""

_POINTS = datasets.List(datasets.List(datasets.Value("float64")))
_COLUMNS = {
    "predictions": _POINTS,
    "references": _POINTS,
    "boxes": datasets.List(datasets.Value("float64")),
    "sequences": datasets.Value("string"),
}


class LandmarkModule(evaluate.Metric, abc.ABC):
    """An `evaluate` module whose rows are faces; what a subclass adds is `_info` and `score_rows`.

    `evaluate` asks for every declared input with every call. Here those that a subclass does not require may be left
    out: they travel as empty rows, and `score_rows` gets None for a column of those.
    """

    columns: tuple[str, ...] = ("predictions", "references", "boxes")
    """Names of the inputs that have one row a face."""
    required: tuple[str, ...] = ("predictions", "references")
    """Those of them that must be given."""

    @abc.abstractmethod
    def score_rows(self, **inputs: Any) -> dict[str, Any]:
        """Compute the results from the columns, as arrays (`sequences`: a list), and the arguments of `compute`."""

    def module_info(self, description: str, inputs_description: str, citation: str) -> evaluate.MetricInfo:
        """Describe the module to `evaluate`, with the features of its columns."""
        return evaluate.MetricInfo(
            description=description,
            inputs_description=inputs_description,
            citation=citation,
            features=datasets.Features({name: _COLUMNS[name] for name in self.columns}),
        )

    def add_batch(self, *, predictions=None, references=None, **columns) -> None:
        """Add faces to score, as lists, arrays or tensors; an empty batch adds none.

        Raises:
            DataError: If the points do not fit each other, or something required is missing.
            BoxError: If the boxes have another shape than (N, 4).
        """
        if predictions is not None and not len(predictions):
            return
        super().add_batch(**self._rows({"predictions": predictions, "references": references, **columns}))

    def add(self, *, prediction=None, reference=None, **columns) -> None:
        """Add one face to score.

        Raises:
            DataError: If the points do not fit each other, or something required is missing.
            BoxError: If the boxes have another shape than (N, 4).
        """
        given = {"predictions": prediction, "references": reference, **columns}
        self.add_batch(**{name: value if value is None else [value] for name, value in given.items()})

    def compute(self, *, predictions=None, references=None, **kwargs) -> dict[str, Any] | None:
        """Score these faces and all that were added; see the description of the inputs.

        Raises:
            DataError: If there is no face to score, or the inputs do not fit each other.
            SchemeError: If the scheme or normalizer is none of those known, or the points are of another scheme.
            BoxError: If the normalizer measures boxes and there are none, or the boxes have another shape.
        """
        others = {name: kwargs.pop(name) for name in self.columns[2:] if name in kwargs}
        if predictions is not None or references is not None:
            if predictions is not None and not len(predictions):
                raise DataError("There is no face to score: predictions is empty.")
            self.add_batch(predictions=predictions, references=references, **others)
            others = {}
        if self.writer is None and self.num_process == 1:
            raise DataError("There is no face to score: give predictions, or add some first.")
        try:
            return super().compute(columns_for_all=others, **kwargs)
        except Exception:
            for lock in self.filelocks or []:  # evaluate keeps them after an error, and waits for them the next time
                lock.release()
            raise

    def _compute(self, columns_for_all: dict[str, Any], **inputs: Any) -> dict[str, Any]:
        """Turn the stored rows into arrays. `columns_for_all` came with `compute` for all the faces added before."""
        inputs |= {name: values for name, values in columns_for_all.items() if values is not None}
        given = {name: _without_empty(inputs.pop(name), name) for name in self.columns}
        rows = self._rows({name: values for name, values in given.items() if values is not None})
        columns = {name: None if given[name] is None else rows[name] for name in self.columns}
        return self.score_rows(**columns, **inputs)

    def _rows(self, given: dict[str, Any]) -> dict[str, Any]:
        """Check what is given and fill the rest with empty rows."""
        unknown = sorted(set(given) - set(self.columns))
        if unknown:
            raise DataError(
                f"{', '.join(unknown)} is no input of this module; its inputs are {', '.join(self.columns)}."
            )
        missing = [name for name in self.required if given.get(name) is None]
        if missing:
            raise DataError(f"{' and '.join(missing)} must be given, one row a face.")
        count = len(given["predictions"])
        rows: dict[str, Any] = {}
        for name in self.columns:
            values = given.get(name)
            if values is None:
                rows[name] = [""] * count if name == "sequences" else [[]] * count
            elif len(values) != count:
                raise DataError(f"There are {count} predictions, but {len(values)} {name}.")
            elif name == "sequences":
                rows[name] = [str(value.item() if hasattr(value, "item") else value) for value in values]
            else:
                rows[name] = _as_array(values, name)
        return rows


@dataclass(frozen=True)
class ScoredFaces:
    """The errors of faces, and what they were computed from.

    Args:
        scheme: The scheme of the points.
        predictions: (N, L, 2) predicted points.
        references: (N, L, 2) annotated points.
        point_errors: (N, L) errors in percent, from `point_errors`.
    """

    scheme: LandmarkScheme
    predictions: np.ndarray
    references: np.ndarray
    point_errors: np.ndarray

    @property
    def errors(self) -> np.ndarray:
        """(N,) errors of the faces in percent, as `normalized_mean_error` gives them."""
        return mean_of_known(self.point_errors, axis=1)

    def results(self, *left_out: str, threshold: float = 10.0) -> dict[str, Any]:
        """Return what `summarize_errors` and `count_missing` say, without the scores that are `left_out`."""
        summary = summarize_errors(self.errors, threshold) | count_missing(self.predictions, self.references)
        return {name: value for name, value in summary.items() if name not in left_out}

    def part_errors(self) -> dict[str, float]:
        """Return the error of each part of the scheme in percent.

        Raises:
            SchemeError: If the scheme names no parts.
        """
        if not self.scheme.parts:
            raise SchemeError(f"The scheme {self.scheme.name} names no parts to score on their own.")
        return part_errors(self.point_errors, self.scheme.parts)


class FaceModule(LandmarkModule):
    """A module that scores each face on its own; what a subclass adds is `_info` and `score`."""

    @abc.abstractmethod
    def score(self, faces: ScoredFaces, **arguments: Any) -> dict[str, Any]:
        """Compute the results from the errors, with the arguments of `compute` that are the module's own."""

    def score_rows(  # type: ignore[override]
        self,
        predictions: np.ndarray,
        references: np.ndarray,
        boxes: np.ndarray | None,
        scheme: SchemeLike = "300w",
        normalizer: NormalizerLike = None,
        **arguments: Any,
    ) -> dict[str, Any]:
        """Score the points by the scheme and normalizer, and hand the errors to `score`."""
        scheme = as_scheme(scheme)
        check_points(references, "references", scheme)
        errors = point_errors(predictions, references, named_normalizer(normalizer, scheme), boxes)
        return self.score(ScoredFaces(scheme, predictions, references, errors), **arguments)


def check_points(points: np.ndarray, name: str, scheme: LandmarkScheme) -> None:
    """Refuse points of another scheme.

    Raises:
        SchemeError: If their number is not the scheme's.
    """
    if points.shape[1:] != (scheme.num_landmarks, 2):
        raise SchemeError(
            f"The scheme {scheme.name} has {scheme.num_landmarks} points, but the {name} have shape {points.shape}; "
            "name their scheme."
        )


def _without_empty(values: Any, name: str) -> Any:
    """Return None for a column of empty rows."""
    filled = sum(len(value) > 0 for value in values)
    if 0 < filled < len(values):
        raise DataError(f"{name} were given for {filled} of {len(values)} faces; give them for all or for none.")
    return values if filled else None


def _as_array(values: Any, name: str) -> np.ndarray:
    """Return rows of numbers as float64; tensors may be on any device, of any type, and part of a graph."""
    values = [_plain(value) for value in values] if isinstance(values, (list, tuple)) else _plain(values)
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError(f"{name} must be numbers, and as many of them for every face.") from None
    if name == "boxes" and array.shape[1:] != (4,):
        raise BoxError(f"boxes must have shape (N, 4), not {array.shape}.")
    if name != "boxes" and (array.ndim != 3 or array.shape[-1] != 2):
        raise DataError(f"{name} must have shape (N, L, 2), not {array.shape}.")
    return array


def _plain(value: Any) -> Any:
    return value.detach().cpu().double().numpy() if hasattr(value, "detach") else value
