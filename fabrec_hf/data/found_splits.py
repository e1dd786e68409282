"""What was found in the splits of a set of faces, whether they are written to files or kept in memory."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from ..errors import DataError
from .face_set import FaceSet
from .shards import ShardReport
from .source import FaceSource
from .survey import Survey


__all__ = ["FoundSplit", "describe_faces", "refuse_copies"]


@dataclass(frozen=True)
class FoundSplit:
    """The faces of a split.

    Attributes:
        report: What they are like, all of them counted.
        digests: (N,) the hash of every face's picture, in order.
    """

    report: ShardReport
    digests: np.ndarray

    @classmethod
    def checked(cls, split: str, report: ShardReport, digests: np.ndarray) -> "FoundSplit":
        """Put a split's report and hashes together.

        Raises:
            DataError: If there is no face in it.
        """
        if not report.faces:
            raise DataError(f"The {split} split holds no face whose picture can be read.")
        return cls(report, digests)


def refuse_copies(found: Mapping[str, FoundSplit], name_of: Callable[[str, int], str], advice: str) -> None:
    """Raise if one and the same picture stands in two splits: what is tested on would have been trained on.

    Args:
        found: The splits by name.
        name_of: Says what a face of a split is called.
        advice: What else than removing one of the two can be done, for the error.

    Raises:
        DataError: If there is such a picture.
    """
    for first, second in combinations(found, 2):
        shared, *faces = np.intersect1d(found[first].digests, found[second].digests, return_indices=True)
        if len(shared):
            names = [name_of(split, int(rows[0])) for split, rows in zip((first, second), faces, strict=True)]
            raise DataError(
                f"{len(shared)} pictures stand both in {first} and in {second}, for example {' and '.join(names)}; "
                f"remove them from one of the two, or {advice}."
            )


def describe_faces(source: FaceSource, found: Mapping[str, FoundSplit], survey: Survey, boxes: str) -> FaceSet:
    """Say what a set of faces is: its mark-up, its crop rule, and what each split holds.

    Args:
        source: The opened data.
        found: Its splits by name.
        survey: What a look at the faces has shown.
        boxes: The rule for boxes that was asked for.
    """
    splits = {}
    for split, faces in found.items():
        counts = faces.report.to_dict()
        del counts["digests"]
        splits[split] = counts | {"copies": len(faces.digests) - len(np.unique(faces.digests))}
    facts = {"rule": boxes, "orientation": survey.orientation, **survey.boxes.to_dict()}
    return FaceSet(
        source.kind,
        source.scheme,
        source.extend_top,
        source.extend_bottom,
        splits,
        boxes=json.loads(json.dumps(facts)),  # as it is read back
        notes=(*source.notes, *survey.notes),
    )
