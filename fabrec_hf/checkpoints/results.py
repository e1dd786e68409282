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

from ..errors import CheckpointError, DataError


__all__ = ["FILE_NAME", "add_measurements", "read_results", "to_json"]

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
# What a card says of every measurement, and of every entry that is written by hand.
NEEDED = {
    "training_data": ("name", "use", "terms"),
    "evaluations": (
        *("nme", "failure_rate", "auc", "count", "parts", "subsets"),
        *("data", "scheme", "normalizer", "threshold", "decoding", "flip_average"),
    ),
    "reconstruction": (
        *("autoencoder", "faces", "held_out_only", "count", "image_size", "minimum", "resamples"),
        *("groups", "unlabelled"),
    ),
}
LICENSE_FIELDS = ("id", "name", "terms")


def read_results(folder: Path) -> dict[str, Any]:
    """Read what is known of a checkpoint; where nothing was written, what its training has left.

    Args:
        folder: The checkpoint.

    Returns:
        All fields of `results.json`, empty where it has none. Of files and folders that were measured only the names
        are left: what stands here is published.

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
        _check_entries(folder / FILE_NAME, values)
        results |= _without_places(values)
    if not results["training"] and (folder / TRAINING_FILE).is_file():
        results["training"] = _training_facts(_read(folder / TRAINING_FILE))
    return results


def add_measurements(folder: Path, files: list[Path]) -> dict[str, Any]:
    """Take over what `fabrec evaluate` and `fabrec robustness` wrote.

    Args:
        folder: The checkpoint; nothing is written to it.
        files: Their `results.json` files.

    Returns:
        The new content of the checkpoint's `results.json`, see `to_json`.

    Raises:
        DataError: A file holds neither an evaluation nor reconstruction errors.
    """
    results = read_results(folder)
    for file in files:
        values = _without_places(_read(file))
        if all(name in values for name in NEEDED["evaluations"]):
            _put(results["evaluations"], values)
        elif isinstance(values.get("reconstruction"), dict):
            results["reconstruction"] = values["reconstruction"]
        else:
            raise DataError(
                f"{file} holds neither an evaluation nor errors of a reconstruction: name the results.json of "
                "`fabrec evaluate` or of `fabrec robustness --faces`."
            )
    return results


def to_json(results: Mapping[str, Any]) -> str:
    """Return the text of a `results.json`, without the fields that are empty."""
    filled = {name: value for name, value in results.items() if value}
    return json.dumps(filled, indent=2, ensure_ascii=False) + "\n"


def _check_entries(file: Path, values: Mapping[str, Any]) -> None:
    """Refuse what a card cannot be made of; the first fields are written by hand."""
    for field, names in NEEDED.items():
        entries = values.get(field) or []
        for entry in entries if isinstance(entries, list) else [entries]:
            lacking = [name for name in names if not isinstance(entry, dict) or name not in entry]
            if lacking:
                raise CheckpointError(f"{file}: an entry of {field!r} has no {lacking[0]!r}.")
    for name, value in values.get("license", {}).items():
        if name not in LICENSE_FIELDS or not isinstance(value, str):
            known = ", ".join(LICENSE_FIELDS)
            raise CheckpointError(f"{file}: {name!r} in 'license' must be one of {known}, and a text.")
    if not all(isinstance(limit, str) for limit in values.get("limits", ())):
        raise CheckpointError(f"{file}: 'limits' must be a list of sentences.")


def _without_places(value: Any) -> Any:
    """Shorten the paths of this machine to their last part."""
    if isinstance(value, dict):
        return {name: _without_places(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [_without_places(entry) for entry in value]
    if isinstance(value, str) and value.startswith(("/", "~", "./", "../")) and not any(map(str.isspace, value)):
        return Path(value).name
    return value


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
