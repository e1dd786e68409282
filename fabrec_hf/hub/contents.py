"""What a repository on the Hub gets: the files of a checkpoint, a converted data set or a metric; nothing else."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from ..checkpoints.names import embedded_names, resolve_checkpoint
from ..checkpoints.results import FILE_NAME as RESULTS_NAME
from ..checkpoints.results import read_results, to_json
from ..checkpoints.weight_files import INDEX_NAME, WEIGHTS_NAME, weight_files
from ..common.choices import MAIN, PICTURE_NAME
from ..common.figures import has_matplotlib
from ..errors import CheckpointError, DataError, HubError, SchemeError
from ..model.delta_fabrec import holds_delta
from .few_shot_curve import CURVE_NAME, draw_few_shot_curve, few_shot_errors
from .model_card import TERMS_NAME, CardContext, make_card, make_terms


__all__ = ["MAIN", "Contents", "gather"]

CARD_NAME = "README.md"
# Sets whose pictures others hold the rights to: their annotations may be published here, never their pictures.
SETS_OF_OTHERS = ("300w", "wflw", "aflw", "vggface2", "affectnet")


@dataclass(frozen=True)
class Contents:
    """What is going to be published.

    Attributes:
        kind: `"model"`, `"dataset"` or `"space"`, as the Hub calls them.
        revisions: The files of every revision by their path in the repository; the main one is the last.
        sdk: What a Space runs; no other kind has one.
    """

    kind: str
    revisions: Mapping[str, Mapping[str, Path]]
    sdk: str | None = None


@contextmanager
def gather(
    source: str | Path,
    repository: str,
    revision: str = MAIN,
    few_shot: Path | None = None,
    annotations_only: bool = False,
) -> Iterator[Contents]:
    """Collect the files; files that are written for the purpose alone are gone afterward.

    Args:
        source: Folder of a checkpoint or the name of an embedded one; folder that `fabrec convert` wrote; folder or
            name of an `evaluate` module of this package.
        repository: `owner/name`, which the card tells how to load.
        revision: Where a checkpoint goes.
        few_shot: Folder of further checkpoints; each becomes a revision that is called as its folder, for example
            `shots-10`, and a row of the main card.
        annotations_only: Leave the pictures of a data set out.

    Raises:
        FabRecError: The source is none of these or not complete, or may not be published like this.
    """
    _check_revision(revision)
    folder = Path(source).expanduser()
    with TemporaryDirectory(prefix="fabrec-push-") as staging:
        if _metric_file(str(source)):
            _refuse({"--few-shot": few_shot, "--annotations-only": annotations_only}, "a metric")
            yield Contents("space", {revision: _metric_files(str(source), repository)}, "static")
        elif (folder / "face_set.json").is_file():
            _refuse({"--few-shot": few_shot}, "a data set")
            yield Contents("dataset", {revision: _dataset_files(folder, Path(staging), annotations_only)})
        else:
            _refuse({"--annotations-only": annotations_only}, "a checkpoint")
            yield Contents("model", _model_revisions(source, repository, revision, few_shot, Path(staging)))


def _check_revision(name: str) -> None:
    if not re.fullmatch(r"\w(?:[\w./+-]*[\w+-])?", name, re.ASCII) or ".." in name or "//" in name:
        raise HubError(f"{name!r} cannot be the name of a revision: use letters, digits, '-', '_', '+', '.', '/'.")


def _refuse(options: Mapping[str, object], what: str) -> None:
    for option, value in options.items():
        if value:
            raise HubError(f"{option} does not apply to {what}.")


def _model_revisions(
    source: str | Path, repository: str, revision: str, few_shot: Path | None, staging: Path
) -> dict[str, dict[str, Path]]:
    if not Path(source).expanduser().is_dir() and str(source) not in embedded_names():
        raise CheckpointError(
            f"{source} is no folder: give that of a checkpoint or of `fabrec convert`, or the name of a metric like "
            f"nme or of an embedded checkpoint ({', '.join(embedded_names())})."
        )
    folder = Path(resolve_checkpoint(source))
    others = _few_shot_folders(few_shot) if few_shot else {}
    if others and revision != MAIN:
        raise HubError("--few-shot fills the revisions beside the main one: leave --revision out.")
    for other in others.values():
        if _point_names(other) != _point_names(folder):
            raise SchemeError(f"{other} finds other points than {folder}: publish it in a repository of its own.")
    named = {**others, revision: folder}
    for name in others:
        _check_revision(name)
    return {
        name: _model_files(place, staging / f"{index}", repository, name, others if place is folder else {})
        for index, (name, place) in enumerate(named.items())
    }


def _few_shot_folders(parent: Path) -> dict[str, Path]:
    """Find the checkpoints right below a folder, in the order of the numbers in their names."""
    if not parent.is_dir():
        raise CheckpointError(f"{parent} is no folder; expected one with a checkpoint in each of its folders.")
    found = {path.name: path for path in parent.iterdir() if (path / "config.json").is_file()}
    if not found:
        raise CheckpointError(f"{parent} holds no checkpoints; expected folders such as shots-10 with a config.json.")
    if MAIN in found:
        raise CheckpointError(f"{found[MAIN]} would replace the main revision: give its folder another name.")
    return {name: found[name] for name in sorted(found, key=_numbers_first)}


def _numbers_first(name: str) -> tuple[int, str]:
    digits = "".join(letter if letter.isdigit() else " " for letter in name).split()
    return (int(digits[0]) if digits else 0, name)


def _point_names(folder: Path) -> list | None:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        scheme = config.get("landmark_scheme") or {}
        return [config.get("model_type"), config.get("num_landmarks"), scheme.get("point_names")]
    except (OSError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{folder} has no readable config.json ({error}).") from error


def _model_files(
    folder: Path, staging: Path, repository: str, revision: str, few_shot: Mapping[str, Path]
) -> dict[str, Path]:
    """Write configuration, processor and source files anew, and take the weights as they are."""
    weights = weight_files(folder)
    if not weights and not holds_delta(folder):
        raise CheckpointError(f"{folder} has no {WEIGHTS_NAME}: save the finished model there first.")
    staging.mkdir()
    _save(folder, staging)
    picture = folder / PICTURE_NAME
    curve = _few_shot_curve(few_shot)
    name = repository.rpartition("/")[2]
    context = CardContext(
        name=name if revision == MAIN else f"{name}, {revision}",
        reference=f'"{repository}"',
        revision=None if revision == MAIN else revision,
        picture=PICTURE_NAME if picture.is_file() else None,
        curve=CURVE_NAME if curve else None,
        few_shot=few_shot,
    )
    (staging / CARD_NAME).write_text(make_card(folder, context), encoding="utf-8")
    written = [staging / name for name in ("config.json", "preprocessor_config.json", CARD_NAME)]
    files = {path.name: path for path in (*written, *sorted(staging.glob("*.py")))}
    # As they are on disk: loading and saving would turn 16-bit weights into 32-bit ones. But a delta is published
    # whole: who has no package has no autoencoder for it.
    files |= {path.name: path for path in weights or [staging / WEIGHTS_NAME]}
    if weights and WEIGHTS_NAME not in files:
        files[INDEX_NAME] = folder / INDEX_NAME
    if (folder / RESULTS_NAME).is_file():
        files[RESULTS_NAME] = staging / RESULTS_NAME
        files[RESULTS_NAME].write_text(to_json(read_results(folder)), encoding="utf-8")
    if picture.is_file():
        files[picture.name] = picture
    if curve:
        files[CURVE_NAME] = staging / CURVE_NAME
        files[CURVE_NAME].write_bytes(curve)
    terms = make_terms(read_results(folder))
    if terms is not None:
        files[TERMS_NAME] = staging / TERMS_NAME
        files[TERMS_NAME].write_text(terms, encoding="utf-8")
    return dict(sorted(files.items()))


def _few_shot_curve(few_shot: Mapping[str, Path]) -> bytes | None:
    """Draw the errors of few-shot checkpoints, where several were measured and there is matplotlib to do it."""
    errors = few_shot_errors(few_shot)
    if len(errors) < 2 or not has_matplotlib():
        return None
    return draw_few_shot_curve(errors)


def _save(folder: Path, staging: Path) -> None:
    """Load the checkpoint, which refuses incomplete ones, and save it with the code and the pipeline that it needs."""
    from ..checkpoints.loading import load_checkpoint
    from ..model.modeling_fabrec import FabRecAutoencoder
    from ..model.pipeline_fabrec import FaceLandmarkPipeline

    model, processor = load_checkpoint(folder)
    if isinstance(model, FabRecAutoencoder):
        model.save_pretrained(staging)
        processor.save_pretrained(staging)
        return
    if model.config.landmark_scheme is None:
        raise SchemeError(f"{folder} does not say what its points are: save it with landmark_scheme in its config.")
    FaceLandmarkPipeline(model=model, image_processor=processor, device="cpu").save_pretrained(staging)


def _dataset_files(folder: Path, staging: Path, annotations_only: bool) -> dict[str, Path]:
    from ..data.face_set import find_face_set

    face_set = find_face_set(folder)
    shards = sorted((folder / "data").glob("*.parquet"))
    if face_set is None or not shards or not (folder / CARD_NAME).is_file():
        raise DataError(f"{folder} is no whole data set: convert it again with `fabrec convert`.")
    if face_set.kind in SETS_OF_OTHERS and not annotations_only:
        raise HubError(
            f"The pictures of {face_set.kind} are not yours to publish: push the annotations alone "
            "(--annotations-only)."
        )
    files = {name: folder / name for name in (CARD_NAME, "face_set.json")}
    if not annotations_only:
        return files | {f"data/{shard.name}": shard for shard in shards}
    files[CARD_NAME] = staging / CARD_NAME
    files[CARD_NAME].write_text(_annotation_card(folder / CARD_NAME), encoding="utf-8")
    for shard in shards:
        files[f"data/{shard.name}"] = staging / shard.name
        _drop_pictures(shard, staging / shard.name)
    return files


def _annotation_card(card: Path) -> str:
    """Say right below the title that there are no pictures."""
    head, title, rest = card.read_text(encoding="utf-8").partition("\n# ")
    heading, _, body = rest.partition("\n")
    note = (
        "**Annotations only**: landmarks, boxes and splits, no pictures. Get those from where the data is published; "
        "`name` and `picture` tell which face and which photograph a row is about."
    )
    return f"{head}{title}{heading}\n\n{note}\n{body}"


def _drop_pictures(source: Path, target: Path) -> None:
    """Copy a Parquet file without its pictures, which are not even read."""
    import datasets
    import pyarrow.parquet

    schema = pyarrow.parquet.read_schema(source)
    features = datasets.Features.from_arrow_schema(schema)
    kept = datasets.Features(
        {name: value for name, value in features.items() if not isinstance(value, datasets.Image)}
    )
    table = pyarrow.parquet.read_table(source, columns=list(kept)).cast(kept.arrow_schema)
    pyarrow.parquet.write_table(table.replace_schema_metadata(kept.arrow_schema.metadata), target)


def _metric_file(source: str) -> Path | None:
    """Return the module of an `evaluate` metric of this package, given its name or folder."""
    metrics = Path(__file__).parents[1] / "metrics"
    folder = Path(source).expanduser()
    if not folder.is_dir() and source.isidentifier():
        folder = metrics / source
    file = folder / f"{folder.resolve().name}.py"
    return file if file.is_file() and folder.resolve().parent == metrics.resolve() else None


def _metric_files(source: str, repository: str) -> dict[str, Path]:
    """`evaluate.load("owner/name")` looks for `name.py`, whatever the module is called here."""
    file = _metric_file(source)
    assert file is not None
    return {CARD_NAME: file.with_name(CARD_NAME), f"{repository.rpartition('/')[2]}.py": file}
