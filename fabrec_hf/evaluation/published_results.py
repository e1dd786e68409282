"""Results that others published (`published_results.json`), and where a result of ours may stand beside them.

A cell of ours is filled only if it was measured on that test set, over the same length and with the same threshold.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any


__all__ = [
    "Column",
    "PublishedResults",
    "PublishedRow",
    "PublishedTable",
    "load_published_results",
    "measured_cells",
    "tables_beside",
]

# The largest and full set of a scheme's test data, and sets whose parts cannot be told from the rows alone.
FULL = "full"
WHOLE_DATA_SETS = ("wflw", "aflw")


@dataclass(frozen=True)
class Column:
    """A column of a published table.

    Attributes:
        subset: the test set, such as `common`.
        metric: `nme` and `failure_rate` in percent, `auc` as a fraction.
        label: what stands above it.
        size: what stands above that, where columns are for numbers of training faces: `10 %`, `50`.
        scale: what the published numbers are multiplied by: 100 for an AUC in percent.
        decimals: how many a result of ours is given.
        shots: annotated faces that were trained on; None for all of them.
    """

    subset: str
    metric: str
    label: str
    size: str = ""
    scale: float = 1.0
    decimals: int = 2
    shots: int | None = None


@dataclass(frozen=True)
class PublishedRow:
    """A row of a published table.

    Attributes:
        method: its name.
        values: the cells as they are printed; None where there is none.
        reference: the number under which the source cites it.
        source: where the numbers were read, if not in the table's source.
        normalizer: the length it is measured over, if not the table's.
        note: what has to be known of it.
    """

    method: str
    values: tuple[str | None, ...]
    reference: str | None = None
    source: str | None = None
    normalizer: str | None = None
    note: str | None = None


@dataclass(frozen=True)
class PublishedTable:
    """A published table, or the part of one that concerns one scheme and metric.

    Attributes:
        id: its name in the file.
        source: key of where it is from in `PublishedResults.sources`.
        title: test data, metric and unit.
        scheme: name of the landmark scheme.
        normalizer: the length that errors are divided by, as `Normalizer.to_dict` writes it.
        columns: without the one of the methods.
        rows: in the order of the source.
        notes: what has to be known of it.
        number: its number in the source.
    """

    id: str
    source: str
    title: str
    scheme: str
    normalizer: Mapping[str, Any]
    columns: tuple[Column, ...]
    rows: tuple[PublishedRow, ...]
    notes: tuple[str, ...] = ()
    number: int | None = None

    @property
    def limited(self) -> bool:
        """Whether its columns stand for numbers of training faces."""
        return any(column.shots is not None for column in self.columns)


@dataclass(frozen=True)
class PublishedResults:
    """The content of `published_results.json`.

    Attributes:
        threshold: the error of a failure, and the end of the AUC, in percent, of all tables.
        sources: `name` and more of every source.
        faces: how many faces each test set has, by scheme and subset.
        tables: all of them.
    """

    threshold: float
    sources: Mapping[str, Mapping[str, Any]]
    faces: Mapping[str, Mapping[str, int]]
    tables: tuple[PublishedTable, ...]


@cache
def load_published_results() -> PublishedResults:
    """Read the file that comes with the package; cells stay as they are printed, `5.5` and `1.00`."""
    text = Path(__file__).with_name("published_results.json").read_text(encoding="utf-8")
    content = json.loads(text, parse_float=str)
    tables = []
    for entry in content["tables"]:
        columns = tuple(Column(**column) for column in entry["columns"])
        rows = tuple(PublishedRow(**{**row, "values": tuple(row["values"])}) for row in entry["rows"])
        tables.append(PublishedTable(**{**entry, "columns": columns, "rows": rows, "notes": tuple(entry["notes"])}))
    return PublishedResults(float(content["threshold"]), content["sources"], content["faces"], tuple(tables))


def tables_beside(result: Mapping[str, Any], shots: int | None = None) -> list[PublishedTable]:
    """Choose the tables that a result belongs into.

    Args:
        result: From `evaluate_checkpoint`.
        shots: Annotated faces that the model was trained on: chooses the tables of limited training data. None
            chooses the tables of full training data.

    Returns:
        The tables with at least one cell for the result.
    """
    tables = [table for table in load_published_results().tables if table.limited == (shots is not None)]
    return [table for table in tables if any(cell is not None for cell in measured_cells(result, table))]


def measured_cells(result: Mapping[str, Any], table: PublishedTable) -> list[float | None]:
    """Return a result's value for every column of a table, in the table's unit; None where it was not measured.

    The column's number of training faces is not looked at: a table of limited data has the value once for each.

    Args:
        result: From `evaluate_checkpoint`.
        table: One of `load_published_results().tables`.
    """
    published = load_published_results()
    if result["scheme"] != table.scheme or result["normalizer"] != table.normalizer:
        return [None] * len(table.columns)
    test_sets = dict(result["subsets"])
    if table.scheme in WHOLE_DATA_SETS:
        # Rows of these do not say that they are of the test set: their number has to.
        if total_faces(result) != published.faces[table.scheme][FULL]:
            return [None] * len(table.columns)
        test_sets[FULL] = result
    cells: list[float | None] = []
    for column in table.columns:
        value = test_sets.get(column.subset, {}).get(column.metric)
        if column.metric != "nme" and result["threshold"] != published.threshold:
            value = None
        cells.append(None if value is None else value * column.scale)
    return cells


def total_faces(summary: Mapping[str, Any]) -> int:
    """Return how many faces a summary is about, faces that cannot be scored included."""
    return summary["count"] + summary["not_scored"]
