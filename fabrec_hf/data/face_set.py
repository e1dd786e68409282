"""What a folder of converted faces says about itself: `face_set.json`, and the card that the Hub shows."""

import glob
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml

from ..errors import DataError
from ..model.known_schemes import LandmarkScheme


__all__ = ["FaceSet", "find_face_set", "shared_face_set"]

FILE_NAME = "face_set.json"


@dataclass(frozen=True)
class FaceSet:
    """A converted set of faces.

    Attributes:
        kind: The format that it was converted from.
        scheme: The mark-up of its landmarks; None without landmarks.
        extend_top: What a crop adds above the box, as a fraction of the box height: the paper's rule for the set.
        extend_bottom: The same below the box.
        splits: What was found in each split, by the name of the split.
        boxes: Where the boxes come from: the `rule` that was asked for, the `orientation` of the
            pictures that points refer to, and what a look at the faces made of it.
        notes: What a person should know of the annotations, a sentence each.
    """

    kind: str
    scheme: LandmarkScheme | None
    extend_top: float
    extend_bottom: float
    splits: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    boxes: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()

    def write(self, folder: Path) -> None:
        """Write `face_set.json` into a folder."""
        values = {
            "kind": self.kind,
            "scheme": self.scheme.to_dict() if self.scheme else None,
            "extend_top": self.extend_top,
            "extend_bottom": self.extend_bottom,
            "splits": dict(self.splits),
            "boxes": dict(self.boxes),
            "notes": list(self.notes),
        }
        (folder / FILE_NAME).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")

    def card(self) -> str:
        """Return the dataset card: which files are which split, and what is in them."""
        files = [{"split": split, "path": f"data/{split}-*.parquet"} for split in self.splits]
        header = {"tags": ["face", "landmarks"], "configs": [{"config_name": "default", "data_files": files}]}
        points = f"{self.scheme.num_landmarks} points (`{self.scheme.name}`)" if self.scheme else "no landmarks"
        return (
            f"---\n{yaml.safe_dump(header, sort_keys=False)}---\n\n# Faces, converted from `{self.kind}`\n\n"
            f"{points}, scheme and crop rule in `{FILE_NAME}`. The license is that of the original data: state it "
            "here before you publish anything.\n\n" + self.table() + "\n"
        )

    def table(self) -> str:
        """Return a Markdown table of what was found, a line a split."""
        names = ("faces", "points", "missing_points", "outside_points", "unlabelled_faces", "copies", "skipped")
        head = ["split", *(name.replace("_", " ") for name in names), "boxes"]
        lines = [head, ["---", *(["---:"] * len(names)), "---"]]
        for split, report in self.splits.items():
            boxes = ", ".join(f"{count:,} {rule}" for rule, count in report["boxes"].items())
            lines.append([split, *(f"{report[name]:,}" for name in names), boxes])
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)

    def summary(self) -> str:
        """Say in a table and in words what was found, and what was made of it."""
        lines = [self.table(), ""]
        if self.scheme:
            count, pairs = self.scheme.num_landmarks, len(self.scheme.flip_pairs)
            lines.append(f"{count} points, scheme {self.scheme.name}, {pairs} flip pairs.")
            if not pairs and count > 1:
                lines.append(
                    "Without flip pairs no mirrored faces are trained on; a scheme file can name them (--scheme)."
                )
        total = {
            name: sum(split.get(name, 0) for split in self.splits.values())
            for name in ("turned", "outside_points", "flat_boxes", "several")
        }
        if total["turned"] and self.boxes.get("orientation", "upright") == "upright":
            lines.append(
                f"{total['turned']:,} pictures are turned by their EXIF orientation; points and boxes are taken to "
                "refer to the upright picture."
            )
        if total["outside_points"]:
            lines.append(
                f"{total['outside_points']:,} points lie outside their pictures; look at some of these, the pictures "
                "may have been resized or cropped after they were annotated."
            )
        if total["flat_boxes"]:
            lines.append(f"{total['flat_boxes']:,} boxes without area count as not given.")
        if total["several"]:
            lines.append(f"{total['several']:,} files hold several pictures, of which the first is taken.")
        return "\n".join([*lines, *self.notes])


def find_face_set(path: str | os.PathLike) -> FaceSet | None:
    """Read the `face_set.json` of a converted folder, given it, a file in it or a glob; None where there is none.

    Raises:
        DataError: If the file is there but damaged.
    """
    parts = takewhile(lambda part: not glob.has_magic(part), Path(os.path.abspath(path)).parts)
    place = Path(*parts)
    folders = [place, *list(place.parents)[:2]] if place.exists() else []
    file = next((folder / FILE_NAME for folder in folders if (folder / FILE_NAME).is_file()), None)
    if file is None:
        return None
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        scheme = values["scheme"]
        scheme = LandmarkScheme.from_dict(scheme) if scheme else None
        return FaceSet(**(values | {"scheme": scheme, "notes": tuple(values.get("notes", ()))}))
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{file} is damaged ({error}); convert the data again.") from error


def shared_face_set(paths: Sequence[str | os.PathLike]) -> FaceSet | None:
    """Read what several converted folders say, which must be of one scheme and one crop rule.

    Raises:
        DataError: If they are not.
    """
    sets = [find_face_set(path) for path in paths]
    rules = {json.dumps(_rule(face_set)) for face_set in sets}
    if len(rules) > 1:
        raise DataError(f"{', '.join(map(str, paths))} differ in scheme or crop rule; use one at a time.")
    return sets[0] if sets else None


def _rule(face_set: FaceSet | None) -> list[Any] | None:
    if face_set is None:
        return None
    scheme = face_set.scheme.to_dict() if face_set.scheme else None
    return [scheme, face_set.extend_top, face_set.extend_bottom]
