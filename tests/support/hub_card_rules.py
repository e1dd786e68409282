"""What the Hub checks of a card's metadata when it is pushed: the published specification, as a list of errors.

From the specifications of model, dataset and Space cards in the Hub's documentation (modelcard.md, datasetcard.md,
spaces-config-reference): unknown licenses and tasks, evaluation results that lack a required field, and values of the
wrong type are errors.
"""

from typing import Any

import yaml


LICENSES = frozenset(
    "apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m afl-3.0 artistic-2.0 bsl-1.0 bsd "
    "bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 "
    "cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 "
    "cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 cdla-permissive-1.0 cdla-permissive-2.0 wtfpl "
    "ecl-2.0 epl-1.0 epl-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc ms-pl "
    "mpl-2.0 odc-by odbl osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl unknown other".split()
)
TASKS = frozenset(
    "keypoint-detection image-feature-extraction image-classification image-segmentation image-to-image "
    "object-detection depth-estimation mask-generation feature-extraction unconditional-image-generation".split()
)
COLORS = frozenset("red yellow green blue indigo purple pink gray".split())
TEXTS = ("license", "license_name", "license_link", "library_name", "pipeline_tag", "title", "emoji", "sdk")
REQUIRED = {"task": ("type",), "dataset": ("type", "name")}


def check_card(content: str, kind: str) -> tuple[list[str], list[str]]:
    """Return the errors and the warnings of a card, `kind` being model, dataset or space."""
    parts = content.split("---\n", 2)
    if len(parts) < 3 or parts[0].strip():
        return ([], ["empty or missing yaml metadata in repo card"])
    try:
        values = yaml.safe_load(parts[1])
    except yaml.YAMLError as error:
        return ([f"the metadata is not valid YAML: {error}"], [])
    if not isinstance(values, dict):
        return (["the metadata must be a mapping"], [])
    errors = [f'"{key}" must be a string' for key in TEXTS if key in values and not isinstance(values[key], str)]
    errors += _license_errors(values)
    for key in ("tags", "datasets", "metrics", "language"):
        listed = values.get(key, [])
        if not isinstance(listed, (str, list)) or not all(isinstance(entry, str) for entry in listed):
            errors.append(f'"{key}" must be strings')
    if "pipeline_tag" in values and values["pipeline_tag"] not in TASKS:
        errors.append(f'"pipeline_tag" must be a known task, not {values["pipeline_tag"]!r}')
    errors += {"space": _space_errors, "dataset": _dataset_errors}.get(kind, _model_errors)(values)
    return errors, []


def _license_errors(values: dict[str, Any]) -> list[str]:
    name = values.get("license")
    if name is not None and name not in LICENSES:
        return [f'"license" must be one of the known ones, not {name!r}']
    if name == "other" and not values.get("license_name"):
        return ['"license_name" is required with "license: other"']
    if "license_name" in values and not str(values["license_name"]).replace("-", "").replace(".", "").isalnum():
        return ['"license_name" must be made of letters, digits, dots and dashes']
    return []


def _model_errors(values: dict[str, Any]) -> list[str]:
    errors = []
    for entry in values.get("model-index") or []:
        if not isinstance(entry.get("name"), str) or not isinstance(entry.get("results"), list):
            return ['"model-index" needs a name and a list of results']
        for result in entry["results"]:
            for part, names in REQUIRED.items():
                errors += [
                    f'"model-index": {part}.{name} is required'
                    for name in names
                    if not isinstance(result.get(part, {}).get(name), str)
                ]
            for metric in result.get("metrics") or [{}]:
                if not isinstance(metric.get("type"), str) or not isinstance(metric.get("value"), (int, float, str)):
                    errors.append('"model-index": metrics need type and value')
    return errors


def _dataset_errors(values: dict[str, Any]) -> list[str]:
    errors = []
    for config in values.get("configs") or []:
        files = config.get("data_files")
        if not isinstance(config.get("config_name"), str):
            errors.append('"configs": config_name is required')
        if isinstance(files, list) and not all({"split", "path"} <= set(entry) for entry in files):
            errors.append('"configs": data_files need split and path')
    return errors


def _space_errors(values: dict[str, Any]) -> list[str]:
    errors = [f'"{key}" is not a color of Spaces' for key in ("colorFrom", "colorTo") if values.get(key) not in COLORS]
    if values.get("sdk") not in ("gradio", "docker", "static"):
        errors.append('"sdk" must be gradio, docker or static')
    if not values.get("title"):
        errors.append('"title" is required')
    return errors
