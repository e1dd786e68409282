"""Model cards: everything that one says comes from the checkpoint's configuration and its `results.json`.

The first screen says what the checkpoint is, shows it, and has what runs it and the license. Limits come before
figures, and long tables are folded.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from ..checkpoints.names import embedded_names
from ..checkpoints.results import read_results
from ..common.citation import CITATION
from ..errors import CheckpointError
from ..evaluation.reconstruction_report import reconstruction_section
from ..evaluation.reports import describe_confidence, describe_length, describe_part, make_tables, to_markdown
from ..model.configuration_fabrec import FabRecConfig
from ..model.delta_fabrec import delta_base
from ..model.known_schemes import LandmarkScheme
from .card_picture import shows_reconstruction


__all__ = ["TERMS_NAME", "CardContext", "evaluation_results", "make_card", "make_terms"]

METRICS = {"nme": "NME in %", "failure_rate": "failures in %", "auc": "AUC"}
# Training data by the name that `results.json` gives them, and where they are on the Hub; others are not there under
# the name of their owners.
HUB_DATA = {"FairFace": "HuggingFaceM4/FairFace"}
TERMS_NAME = "LICENSE.md"
DATA_NAMES = {"300w": "300-W", "wflw": "WFLW", "aflw": "AFLW", "mtfl": "MTFL", "mesh": "mesh"}

UNKNOWN_TERMS = (
    "**License not stated.** The terms of the data that it was trained on apply; nobody has written them here."
)
LANDMARK_LIMITS = (
    "Faces in profile, strong occlusion and closed eyes are the hard cases: expect larger errors than the mean where "
    "no row below measures them.",
    "A box has to be close to what the model was trained with, brow to chin; `fabrec robustness` measures how much "
    "that matters.",
)
PLAIN_SCORES = "The scores are heights of heatmaps, not calibrated probabilities."
AUTOENCODER_LIMITS = (
    "Profiles, glasses, hands and other things in front of a face are reconstructed worst.",
    "A reconstruction shows what the model has understood of a face, not what the person looks like.",
)
MISUSE = (
    "It must not be used to identify or track people, nor to infer or decide anything about them: not their identity, "
    "emotion, health, age, gender, race or character. It is made to study and to build face alignment, with the "
    "consent of the people in the pictures."
)


@dataclass(frozen=True)
class CardContext:
    """The place where a card is going to stand.

    Attributes:
        name: Its title.
        reference: What `from_pretrained` is given, as Python source, such as `"owner/3fabrec-300w"` in quotes.
        revision: The revision that it belongs to, if not the main one.
        picture: Path of the picture as seen from the card; None where there is none.
        curve: Path of the picture of the few-shot checkpoints' errors; None where there is none.
        few_shot: Folders of the checkpoints that lie in other revisions, by the name of the revision.
    """

    name: str
    reference: str
    revision: str | None = None
    picture: str | None = None
    curve: str | None = None
    few_shot: Mapping[str, Path] = field(default_factory=dict)


def make_card(folder: Path, context: CardContext) -> str:
    """Write the card of a checkpoint as Markdown, with the Hub's metadata above.

    Args:
        folder: The checkpoint with its `config.json`, and `results.json` if there is one.
        context: Where the card is going to stand.

    Raises:
        CheckpointError: The configuration or the results are missing or damaged.
    """
    config, results = _read_config(folder), read_results(folder)
    landmarks = config["model_type"] == FabRecConfig.model_type
    scheme = LandmarkScheme.from_dict(config["landmark_scheme"]) if config.get("landmark_scheme") else None
    parts = [f"# {context.name}", results["summary"] or _describe(config, scheme)]
    if context.picture:
        parts.append(_picture(context.picture, config))
    parts += ["## Use", _usage(context, landmarks), _terms(results), _usage_note(context, landmarks)]
    standing = (*LANDMARK_LIMITS, _score_limit(config)) if landmarks else AUTOENCODER_LIMITS
    parts += ["## Limits", "\n".join(f"- {limit}" for limit in (*results["limits"], *standing))]
    parts += ["## What it must not be used for", MISUSE]
    if context.few_shot:
        parts.append("## Few-shot checkpoints")
        if context.curve:
            parts.append(f"![Error by the number of annotated faces]({context.curve})")
        parts.append(_few_shot_table(context))
    if results["evaluations"]:
        parts += ["## Measured", _measured(results["evaluations"], scheme), _confidence(results["evaluations"])]
        parts.append(_folded("Beside published results", _beside(results, context, scheme)))
    if results["reconstruction"]:
        heading, *lines = reconstruction_section(results["reconstruction"])
        parts += [heading, _folded("The table of all groups, and how it was measured", "\n".join(lines))]
    parts += _training(results)
    parts += ["## Citation", f"```bibtex\n{CITATION.strip()}\n```"]
    body = "\n\n".join(part.strip() for part in parts if part)
    return f"---\n{_metadata(folder, results, context, landmarks)}\n---\n\n{body}\n"


def make_terms(results: Mapping[str, Any]) -> str | None:
    """Write the terms of a license that the Hub has no name for; None where there is no such license.

    Args:
        results: From `read_results`.
    """
    known = results["license"]
    if known.get("id") != "other" or not known.get("terms"):
        return None
    table = f"\n\n{_terms_of_data(results)}" if results["training_data"] else ""
    return f"# {known.get('name') or 'Terms'}\n\n{known['terms']}{table}\n"


def evaluation_results(results: Mapping[str, Any]) -> list[EvalResult]:
    """Return what was measured in the form of the Hub's metadata.

    Args:
        results: From `read_results`.
    """
    found = []
    for entry in results["evaluations"]:
        for subset, summary in _subsets(entry).items():
            label = DATA_NAMES.get(entry["scheme"], entry["scheme"])
            label = f"{label} ({subset.replace('_', ' ')})" if subset else label
            for metric, name in METRICS.items():
                if summary[metric] is None:
                    continue
                settings = {"normalizer": entry["normalizer"], "threshold": entry["threshold"]}
                found.append(
                    EvalResult(
                        task_type="keypoint-detection",
                        dataset_type=entry["scheme"],
                        dataset_name=label,
                        dataset_config=subset or None,  # results of one task, type, config and split count as one
                        dataset_split=entry.get("split"),
                        metric_type=metric,
                        metric_name=f"{name}, {_how(entry)}",
                        metric_value=round(summary[metric], 4),
                        metric_args=settings if metric != "nme" else {"normalizer": entry["normalizer"]},
                    )
                )
    return found


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{folder} holds no checkpoint with a readable config.json.") from error
    return config


def _metadata(folder: Path, results: Mapping[str, Any], context: CardContext, landmarks: bool) -> str:
    known = results["license"]
    license_name = known.get("name") if known.get("id") == "other" else None
    measured = evaluation_results(results)
    trained = [HUB_DATA[entry["name"]] for entry in results["training_data"] if entry["name"] in HUB_DATA]
    data = ModelCardData(
        license=known.get("id"),
        license_name=license_name,
        license_link=TERMS_NAME if make_terms(results) else None,
        datasets=trained or None,
        base_model=_base_model(folder, results),
        library_name="transformers",
        pipeline_tag="keypoint-detection" if landmarks else "image-feature-extraction",
        tags=["face", "landmarks", "few-shot", "3fabrec"] if landmarks else ["face", "autoencoder", "3fabrec"],
        model_name=context.name if measured else None,
        eval_results=measured or None,
    )
    return data.to_yaml()


def _base_model(folder: Path, results: Mapping[str, Any]) -> str | None:
    """Return what a checkpoint was taught from: a repository, or a checkpoint of the package.

    A delta says so itself; of another checkpoint it is the first embedded one that its facts of the training name.
    """
    name = delta_base(folder)
    if name is None:
        named = re.findall(r"`([^`]+)`", str(results["training"].get("start", "")))
        name = next((each for each in named if each in embedded_names()), None)
    if name is None or name in embedded_names() or (name.count("/") == 1 and not Path(name).exists()):
        return name
    return None  # a folder of somebody's machine


def _terms(results: Mapping[str, Any]) -> str:
    terms = results["license"].get("terms")
    line = f"**License:** {terms}" if terms else UNKNOWN_TERMS
    named = ", ".join(f"{entry['name']} ({entry['terms']})" for entry in results["training_data"])
    return f"{line} Trained on {named}." if named else line


def _describe(config: Mapping[str, Any], scheme: LandmarkScheme | None) -> str:
    size = f"{config['image_size']}-px crops"
    if config["model_type"] != FabRecConfig.model_type:
        return f"A 3FabRec autoencoder of faces: {size}, {config['latent_size']} latent numbers."
    named = f" of the scheme `{scheme.name}`" if scheme else ""
    return f"A 3FabRec landmark detector: {config['num_landmarks']} points{named} with a score each, from {size}."


def _picture(path: str, config: Mapping[str, Any]) -> str:
    caption = "Photographs and their reconstructions."
    if config["model_type"] == FabRecConfig.model_type:
        caption = "Photograph, landmark heatmaps, and landmarks, colored from unsure (red) to sure (aqua)"
        caption += ", and reconstruction." if shows_reconstruction(config.get("backbone")) else "."
    return f"![{caption}]({path})\n\n*{caption}*"


def _usage(context: CardContext, landmarks: bool) -> str:
    revision = f', revision="{context.revision}"' if context.revision else ""
    if landmarks:
        lines = [
            "from transformers import pipeline",
            f'faces = pipeline("face-landmark-detection", model={context.reference}{revision})("photo.jpg")',
            'fabrec_hf.draw_landmarks("photo.jpg", faces).save("landmarks.png")',
        ]
    else:
        lines = [
            "from transformers import AutoModel",
            f"model = AutoModel.from_pretrained({context.reference}{revision})",
        ]
    return "```python\n# pip install . in a clone of fabrec_hf\nimport fabrec_hf\n" + "\n".join(lines) + "\n```"


def _usage_note(context: CardContext, landmarks: bool) -> str:
    revision = f', revision="{context.revision}"' if context.revision else ""
    note = "`import fabrec_hf` first registers the model; nothing else of that package has to be named."
    if not context.reference.startswith("fabrec_hf."):
        task = f"`pipeline(model={context.reference}{revision}, trust_remote_code=True)`" if landmarks else ""
        note += " Without the package"
        note += f", {task} and boxes for the faces do the same." if task else " give `trust_remote_code=True`."
    return note


def _few_shot_table(context: CardContext) -> str:
    rows = []
    for revision, folder in context.few_shot.items():
        results = read_results(folder)
        evaluations = results["evaluations"]
        shots = evaluations[0].get("shots") if evaluations else None
        learned = f"{shots:,}" if shots else results["training"].get("landmarks", "")
        measured = [
            f"{subset.replace('_', ' ') or 'all'} {summary['nme']:.2f}"
            for subset, summary in (_subsets(evaluations[0]).items() if evaluations else ())
            if summary["nme"] is not None
        ]
        rows.append((f"`{revision}`", learned, ", ".join(measured) or "not measured"))
    example = f'from_pretrained({context.reference}, revision="{next(iter(context.few_shot))}")'
    note = f"Each is a revision of this repository: `{example}`."
    return _table(("revision", "annotated faces", "NME in %"), rows) + f"\n\n{note}"


def _score_limit(config: Mapping[str, Any]) -> str:
    """Say what a score stands for, and where it does not hold."""
    known = config.get("error_model") or config.get("score_calibration")
    if not known:
        return PLAIN_SCORES
    return (
        f"A score is the probability that the point lies within {known['tolerance']:g} % of the normalizing length of "
        f"the truth, learned from {known['count']:,} points of faces that the detector had not learned from. It holds "
        "for pictures like those, and not for profiles or covered faces that they had few of."
    )


def _terms_of_data(results: Mapping[str, Any]) -> str:
    rows = [(entry["name"], entry["use"], entry["terms"]) for entry in results["training_data"]]
    return _table(("data", "used for", "terms"), rows)


def _training(results: Mapping[str, Any]) -> list[str]:
    parts = []
    if results["training_data"]:
        parts += ["## Training data", _terms_of_data(results)]
    if results["training"]:
        facts = _table(("", ""), list(results["training"].items()))
        parts += ["## Training", _folded("How it was trained", facts)]
    return parts


def _measured(evaluations: Sequence[Mapping[str, Any]], scheme: LandmarkScheme | None) -> str:
    first = evaluations[0]
    parts = list(first["parts"])
    header = ("decoding", "faces", "number", *METRICS.values(), *(part.replace("_", " ") for part in parts))
    rows = []
    for entry in evaluations:
        for subset, summary in _subsets(entry).items():
            numbers = [_number(summary[metric], 3 if metric == "auc" else 2) for metric in METRICS]
            values = [_number(summary["parts"].get(part), 2) for part in parts]
            name = subset.replace("_", " ") or "all"
            rows.append((_how(entry), name, str(summary["count"]), *numbers, *values))
    length = describe_length(first["normalizer"], scheme)
    data = " ".join(map(str, first["data"]))
    note = (
        f"By `fabrec evaluate --data {data}`, given boxes; errors in percent of {length}, failures above "
        f"{first['threshold']:g} %. The last columns are the NME of the parts of the face."
    )
    weighted = [f"{_how(entry)}: {part}" for entry in evaluations if (part := describe_part(entry))]
    return "\n\n".join([_table(header, rows), note, *weighted])


def _confidence(evaluations: Sequence[Mapping[str, Any]]) -> str:
    """Return a line for every evaluation that measured what the scores say; older ones did not."""
    lines = ((_how(entry), describe_confidence(entry)) for entry in evaluations)
    return "\n".join(f"- {how}. {confidence}" for how, confidence in lines if confidence)


def _beside(results: Mapping[str, Any], context: CardContext, scheme: LandmarkScheme | None) -> str:
    first = results["evaluations"][0]
    tables = make_tables(first, context.name, scheme, first.get("shots"))[1:]
    return to_markdown(tables) if tables else ""


def _folded(summary: str, text: str) -> str:
    """Put text behind a line that opens it; the empty lines make Markdown of what is within."""
    return f"<details>\n<summary>{summary}</summary>\n\n{text.strip()}\n\n</details>" if text.strip() else ""


def _subsets(entry: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the summaries of an evaluation: of all faces, under an empty name, unless one subset is all of them."""
    subsets = dict(entry["subsets"])
    whole = {} if any(summary["count"] == entry["count"] for summary in subsets.values()) else {"": entry}
    return whole | subsets


def _how(entry: Mapping[str, Any]) -> str:
    decoding = {"subpixel": "sub-pixel", "argmax": "argmax (the paper's)"}.get(entry["decoding"], entry["decoding"])
    mirrored = ", averaged with the mirrored crop" if entry["flip_average"] else ""
    # Results of a time when evaluations did not say so have no such field.
    prior = ", shape prior" if entry.get("shape_prior") else ""
    return decoding + mirrored + prior


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
