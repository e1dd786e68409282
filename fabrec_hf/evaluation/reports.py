"""Tables of results, alone and beside published ones, as Markdown and LaTeX."""

import math
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..model.known_schemes import LandmarkScheme, Normalizer, known_normalizers
from .published_results import (
    Column,
    PublishedRow,
    PublishedTable,
    load_published_results,
    measured_cells,
    tables_beside,
    total_faces,
)


__all__ = [
    "Table",
    "describe_confidence",
    "describe_length",
    "describe_part",
    "make_tables",
    "to_latex",
    "to_markdown",
]

EMPTY = "-"

LENGTHS_OF_BOXES = {"box": "the longer side of the face box", "box_diagonal": "the diagonal of the face box"}
LENGTHS_OF_EYES = {
    "inter_ocular": "the distance of the outer eye corners",
    "inter_pupil": "the distance of the eye centers",
}


@dataclass(frozen=True)
class Table:
    """A table ready to be written.

    Attributes:
        title: one line.
        header: a label for every column.
        rows: cells, of which the first is the row's label.
        ours: the row that is ours among the rows of others, if there are others.
        notes: sentences to stand below.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    ours: int | None = None
    notes: tuple[str, ...] = ()


def make_tables(
    result: Mapping[str, Any], name: str, scheme: LandmarkScheme | None = None, shots: int | None = None
) -> list[Table]:
    """Make the table of a result, and the published tables that it may stand in, with a row of its own.

    Args:
        result: From `evaluate_checkpoint`.
        name: What our row is called.
        scheme: The scheme of the result, to call the points of its normalizer by name.
        shots: How many annotated faces the model was trained on, if only few: our row then goes into the column of
            that size of the tables of limited training data.
    """
    published = tables_beside(result, shots)
    how = describe_measurement(result, scheme)
    tables = [_result_table(result, name, how, bool(published))]
    return tables + [_comparison(result, table, name, how, shots) for table in published]


def describe_length(normalizer: Mapping[str, Any], scheme: LandmarkScheme | None = None) -> str:
    """Say in words what errors are divided by.

    Args:
        normalizer: As `Normalizer.to_dict` writes it.
        scheme: The scheme of its points; only with it are lengths between the eyes called so.
    """
    known = known_normalizers(scheme) if scheme is not None else {kind: Normalizer(kind) for kind in LENGTHS_OF_BOXES}
    name = next((name for name, length in known.items() if length.to_dict() == normalizer), "")
    if name in LENGTHS_OF_BOXES:
        return LENGTHS_OF_BOXES[name]
    first, second = (_describe_end(end) for end in normalizer["points"])
    return f"{LENGTHS_OF_EYES.get(name, 'the distance of two points')} (points {first} and {second})"


def _describe_end(end: int | Sequence[int]) -> str:
    """Write one end of a length: a point, or several whose mean it is."""
    if isinstance(end, int):
        return str(end)
    if len(end) > 2 and list(end) == list(range(end[0], end[0] + len(end))):
        return f"{end[0]} to {end[-1]}"
    return "+".join(map(str, end))


def describe_measurement(result: Mapping[str, Any], scheme: LandmarkScheme | None = None) -> str:
    """Say in one sentence how a result was measured."""
    decoding = {"subpixel": "sub-pixel"}.get(result["decoding"], result["decoding"])
    flip = "averaged with" if result["flip_average"] else "without averaging with"
    prior = ", corrected by the shape prior" if result.get("shape_prior") else ""
    return (
        f"given boxes, {decoding} decoding ({result['protocol']} protocol), {flip} the mirrored crop{prior}, "
        f"errors in % of {describe_length(result['normalizer'], scheme)}, failures above {result['threshold']:g} %"
    )


def describe_confidence(result: Mapping[str, Any]) -> str:
    """Say in one line what the scores of points say of their errors; nothing where that was not measured.

    Args:
        result: From `evaluate_checkpoint`, perhaps of a time when it measured less.
    """
    confidence = result.get("confidence", {})
    if confidence.get("points") == 0:
        return "Confidence: no point has both a score and an error."
    if "kept" not in confidence:
        return ""
    correlation, kept = confidence["rank_correlation"], confidence["kept"]
    order = "undefined (nothing to rank)" if correlation is None else f"{correlation:.2f}"
    words = (
        f"Confidence: rank correlation of scores with errors {order}; area under the risk-coverage curve "
        f"{confidence['area_under_risk_coverage']:.2f} % (a perfect order {confidence['perfect_order']:.2f}, no order "
        f"{confidence['mean_error']:.2f}); the {100 * kept['share']:.0f} % of the points that score highest "
        f"have a mean error of {kept['error']:.2f} % (fabrec detect --min-score {kept['score']:g})"
    )
    if calibration := confidence.get("calibration"):
        words += (
            f"; the mean score is {calibration['score']:.2f}, and {100 * calibration['found']:.0f} % of the points "
            f"lie within {calibration['tolerance']:g} % (calibration error {calibration['error']:.3f})"
        )
    if left_out := confidence["left_out"]:
        words += f"; {left_out} points without a finite score and error are left out"
    return f"{words}."


def describe_part(result: Mapping[str, Any]) -> str:
    """Say what a part of a published test set tells of the whole of it; nothing where that is not known."""
    weighted = result.get("weighted")
    if not weighted:
        return ""
    words = (
        f"{weighted['faces']:,} of the {weighted['of']:,} test faces; weighted to the shares that difficult groups "
        f"have in the whole set, the NME is {weighted['nme']:.2f} %"
    )
    none = weighted["none"]
    return f"{words}." if none is None else f"{words}; that of the faces of no such group is {none:.2f} %."


def _result_table(result: Mapping[str, Any], name: str, how: str, has_published: bool) -> Table:
    limit = f"{result['threshold']:g} %"
    header = ("faces of", "count", "NME in %", f"FR at {limit}, in %", f"AUC to {limit}")
    header += tuple(f"{part.replace('_', ' ')} NME" for part in result["parts"])
    rows = []
    for label, summary in {"all the data": result, **result["subsets"]}.items():
        cells = [_format(summary[metric], digits) for metric, digits in (("nme", 3), ("failure_rate", 2), ("auc", 4))]
        parts = [_format(summary["parts"].get(part), 3) for part in result["parts"]]
        rows.append((label.replace("_", " "), str(summary["count"]), *cells, *parts))
    notes = [f"{name}: scheme {result['scheme']}, {how}."]
    if result["without_prediction"] or result["not_scored"]:
        notes.append(
            f"{result['without_prediction']} faces have no prediction (failures, and not in the NME), "
            f"{result['not_scored']} cannot be scored and are left out."
        )
    if part := describe_part(result):
        notes.append(part)
    if confidence := describe_confidence(result):
        notes.append(confidence)
    if not has_published:
        notes += _why_alone(result)
    return Table(f"{name}, measured", header, tuple(rows), notes=tuple(notes))


def _why_alone(result: Mapping[str, Any]) -> list[str]:
    """Say why no published table is shown, where there are some for the scheme."""
    published = load_published_results()
    tables = [table for table in published.tables if table.scheme == result["scheme"]]
    if not tables:
        return []
    if all(table.normalizer != result["normalizer"] for table in tables):
        return ["Published results are not shown: they are measured over another length."]
    sizes = ", ".join(f"{name} {count}" for name, count in published.faces[result["scheme"]].items())
    return [f"Published results are not shown: the data holds none of their test sets ({sizes} faces)."]


def _comparison(result: Mapping[str, Any], table: PublishedTable, name: str, how: str, shots: int | None) -> Table:
    """Set a result as the last row below published ones."""
    columns, values = list(table.columns), measured_cells(result, table)
    if shots is not None:
        columns, values = _at_size(columns, values, shots)
    header = ("method", *(f"{column.size} {column.label}".strip() for column in columns))
    rows: list[tuple[str, ...]] = []
    footnotes = list(dict.fromkeys(row.note for row in table.rows if row.note))
    marks = {note: f"({letter})" for note, letter in zip(footnotes, string.ascii_lowercase, strict=False)}
    for row in table.rows:
        label = f"{_method(row)} {marks[row.note]}" if row.note else _method(row)
        cells = [EMPTY if value is None else value for value in row.values]
        rows.append((label, *cells, *[EMPTY] * (len(columns) - len(cells))))
    ours = [_format(value, column.decimals) for value, column in zip(values, columns, strict=True)]
    rows.append((f"{name} (ours)", *ours))
    source = load_published_results().sources[table.source]
    origin = f"{source['name']}, Table {table.number}" if table.number else source["name"]
    notes = [
        *(f"{mark} {note}" for note, mark in marks.items()),
        *table.notes,
        f"Others: {origin}; [n] is its reference n." if table.number else source["note"],
    ]
    notes += [f"Ours: {how}; {_faces(result, columns, values)}.", *_gaps(result, columns, values)]
    if shots is not None:
        notes.append(f"Ours was trained on {shots} annotated {'face' if shots == 1 else 'faces'}.")
    return Table(f"{table.title} ({origin})", header, tuple(rows), ours=len(rows) - 1, notes=tuple(notes))


def _at_size(columns: list[Column], values: list[float | None], shots: int) -> tuple[list[Column], list[float | None]]:
    """Keep our values in the columns of one number of training faces, which are added if nobody published any."""
    if all(column.shots != shots for column in columns):
        first = [index for index, column in enumerate(columns) if column.shots == columns[0].shots]
        columns = columns + [replace(columns[index], size=str(shots), shots=shots) for index in first]
        values = values + [values[index] for index in first]
    return columns, [value if column.shots == shots else None for column, value in zip(columns, values, strict=True)]


def _faces(result: Mapping[str, Any], columns: Sequence[Column], values: Sequence[float | None]) -> str:
    """Say how many faces our cells stand for."""
    expected = load_published_results().faces[result["scheme"]]
    phrases = []
    for subset in _subsets(columns, values, filled=True):
        count = total_faces(result["subsets"].get(subset, result))
        phrase = f"{subset.replace('_', ' ')} {count} faces"
        if expected.get(subset, count) != count:
            phrase += f" of {expected[subset]}, only a part of that test set"
        phrases.append(phrase)
    return ", ".join(phrases)


def _gaps(result: Mapping[str, Any], columns: Sequence[Column], values: Sequence[float | None]) -> list[str]:
    """Say why cells of ours are empty."""
    notes = []
    missing = [subset.replace("_", " ") for subset in _subsets(columns, values, filled=False)]
    if missing:
        names = " and ".join([", ".join(missing[:-1]), missing[-1]] if missing[1:] else missing)
        notes.append(f"Our data covers only a part of this table: it does not hold the test sets {names} as a whole.")
    threshold = load_published_results().threshold
    if result["threshold"] != threshold and any(column.metric != "nme" for column in columns):
        notes.append(f"FR and AUC are published for {threshold:g} %; ours were measured for another threshold.")
    return notes


def _subsets(columns: Sequence[Column], values: Sequence[float | None], filled: bool) -> list[str]:
    """Return the subsets that our row has a value of, or the subsets that it has none of."""
    have = {column.subset for column, value in zip(columns, values, strict=True) if value is not None}
    return [subset for subset in dict.fromkeys(column.subset for column in columns) if (subset in have) == filled]


def _method(row: PublishedRow) -> str:
    if row.reference:
        return f"{row.method} [{row.reference}]"
    return f"{row.method}; {row.source}" if row.source else row.method


def _format(value: float | None, digits: int) -> str:
    return EMPTY if value is None or math.isnan(value) else f"{value:.{digits}f}"


def to_markdown(tables: Sequence[Table]) -> str:
    """Write tables as Markdown; our row among others is bold."""
    return "\n\n".join(_markdown_table(table) for table in tables) + "\n"


def _markdown_table(table: Table) -> str:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cells) + " |"

    lines = [f"**{_markdown(table.title)}**", "", line([_markdown(cell) for cell in table.header])]
    lines.append(line(["---", *["---:"] * (len(table.header) - 1)]))
    for index, row in enumerate(table.rows):
        cells = [_markdown(cell) for cell in row]
        lines.append(line([f"**{cell}**" if index == table.ours and cell != EMPTY else cell for cell in cells]))
    return "\n".join([*lines, *(f"\n{_markdown(note)}" for note in table.notes)])


def _markdown(text: str) -> str:
    """Escape what Markdown would take for mark-up."""
    return re.sub(r"([\\|*_`<])", r"\\\1", " ".join(text.split()))


def to_latex(tables: Sequence[Table]) -> str:
    """Write tables as LaTeX floats that need the package booktabs; our row among others is bold, below a rule."""
    return "% Needs \\usepackage{booktabs} in the preamble.\n" + "\n".join(map(_latex_table, tables))


def _latex_table(table: Table) -> str:
    def line(cells: Sequence[str]) -> str:
        return "  " + " & ".join(cells) + r" \\"

    lines = [r"\begin{table}", r"\centering", rf"\caption{{{_latex(table.title)}}}"]
    lines += [rf"\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}", r"  \toprule"]
    lines += [line([_latex(cell) for cell in table.header]), r"  \midrule"]
    for index, row in enumerate(table.rows):
        cells = ["--" if cell == EMPTY else _latex(cell) for cell in row]
        if index == table.ours:
            lines.append(r"  \midrule")
            cells = [cell if cell == "--" else rf"\textbf{{{cell}}}" for cell in cells]
        lines.append(line(cells))
    lines += [r"  \bottomrule", r"\end{tabular}"]
    lines += [rf"\par\footnotesize {_latex(note)}" for note in table.notes]
    return "\n".join([*lines, r"\end{table}", ""])


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "³": r"\textsuperscript{3}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}


def _latex(text: str) -> str:
    words = "".join(_LATEX.get(character, character) for character in " ".join(text.split()))
    return words.replace("--", "-{}-")  # an option of the command line, and no dash
