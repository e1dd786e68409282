"""`results.json`, which lies beside a checkpoint's weights and says what is known and what was measured of it.

Its card is made from this file alone. All fields may be missing; those of the first four are written by hand:

| field | what |
|---|---|
| `summary` | one or two sentences: what the checkpoint is |
| `license` | `{"id", "name", "terms"}`: the Hub's identifier, for `other` its name, and one sentence in plain words |
| `training_data` | a list of `{"name", "use", "terms"}` |
| `training`, `limits` | facts of the training by name, and a list of sentences |
| `evaluations` | what `fabrec evaluate --json` printed, one entry a way of measuring; the first one is the main one |
| `reconstruction` | the field of that name from the `results.json` of `fabrec robustness --faces` |
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .errors import CheckpointError, DataError


__all__ = ["FILE_NAME", "add_measurements", "read_results"]

FILE_NAME = "results.json"
TRAINING_FILE = "training_results.json"

FIELDS: dict[str, type] = {
    "summary": str,
    "license": dict,
    "training_data": list,
    "training": dict,
    "limits": list,
    "evaluations": list,
    "reconstruction": dict,
}
# Two results that agree in all of these measured the same thing: the later one replaces the earlier.
WAY_OF_MEASURING = ("data", "split", "protocol", "decoding", "flip_average", "normalizer", "threshold")
MEASURED = ("nme", "failure_rate", "auc", "count", "parts", "subsets", "scheme", "normalizer", "decoding")


def read_results(folder: Path) -> dict[str, Any]:
    """Read what is known of a checkpoint; where nothing was written, what its training has left.

    Args:
        folder: The checkpoint.

    Returns:
        All fields of `results.json`, empty where it has none.

    Raises:
        CheckpointError: The file is damaged or has another layout.
    """
    results: dict[str, Any] = {name: kind() for name, kind in FIELDS.items()}
    if (folder / FILE_NAME).is_file():
        values = _read(folder / FILE_NAME)
        wrong = [name for name, value in values.items() if not isinstance(value, FIELDS.get(name, ()))]
        if wrong:
            raise CheckpointError(
                f"{folder / FILE_NAME} has an unknown or malformed field {wrong[0]!r}; known are {', '.join(FIELDS)}."
            )
        results |= values
    if not results["training"] and (folder / TRAINING_FILE).is_file():
        results["training"] = _training_facts(_read(folder / TRAINING_FILE))
    return results


def add_measurements(folder: Path, files: list[Path]) -> dict[str, Any]:
    """Take over what `fabrec evaluate` and `fabrec robustness` wrote.

    Args:
        folder: The checkpoint; nothing is written to it.
        files: Their `results.json` files.

    Returns:
        The new content of the checkpoint's `results.json`, without its empty fields.

    Raises:
        DataError: A file holds neither an evaluation nor reconstruction errors.
    """
    results = read_results(folder)
    for file in files:
        values = _read(file)
        if all(name in values for name in MEASURED):
            _put(results["evaluations"], values)
        elif isinstance(values.get("reconstruction"), dict):
            results["reconstruction"] = values["reconstruction"]
        else:
            raise DataError(
                f"{file} holds neither an evaluation nor errors of a reconstruction: name the results.json of "
                "`fabrec evaluate` or of `fabrec robustness --faces`."
            )
    return {name: value for name, value in results.items() if value}


def _put(evaluations: list[dict[str, Any]], new: dict[str, Any]) -> None:
    for place, old in enumerate(evaluations):
        if all(old.get(name) == new.get(name) for name in WAY_OF_MEASURING):
            evaluations[place] = new
            return
    evaluations.append(new)


def _read(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise CheckpointError(f"{file} is no JSON file ({error}); restore it or remove it.") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{file} must hold a JSON object.")
    return values


def _training_facts(values: Mapping[str, Any]) -> dict[str, str]:
    """Put what `training/train_landmarks.py` writes into words."""
    facts = {}
    if "faces" in values:
        facts["landmarks"] = f"{values['faces']:,} annotated faces"
    if "steps" in values:
        facts["steps"] = f"{values['steps']:,}"
    if "validation_nme" in values:
        facts["validation"] = f"NME {values['validation_nme']:.2f} % on {values['validation_faces']:,} other faces"
    return facts
