"""Published numbers, and where a result of ours stands among them."""

import copy
import re

import pytest

from fabrec_hf.evaluation.published_results import load_published_results, measured_cells, tables_beside
from fabrec_hf.evaluation.reports import Table, describe_length, make_tables, to_latex, to_markdown
from fabrec_hf.model.known_schemes import get_scheme


PUBLISHED = load_published_results()
TABLES = {table.id: table for table in PUBLISHED.tables}


def row_of(table: str, method: str) -> list[float | None]:
    (row,) = [row for row in TABLES[table].rows if row.method == method]
    return [None if value is None else float(value) for value in row.values]


def summary(nme: float, failure_rate: float = 1.0, auc: float = 0.5, count: int = 1) -> dict:
    numbers = {"nme": nme, "failure_rate": failure_rate, "auc": auc, "count": count}
    return numbers | {"without_prediction": 0, "not_scored": 0, "parts": {"jaw": 2 * nme}}


def make_result(scheme: str, whole: dict, **subsets: dict) -> dict:
    measured = {"threshold": 10.0, "protocol": "default", "decoding": "subpixel", "flip_average": False}
    normalizer = get_scheme(scheme).normalizer.to_dict()
    return {**whole, "subsets": subsets, "scheme": scheme, "normalizer": normalizer, **measured}


COMMON = make_result("300w", summary(4.757, count=554), common=summary(4.757, count=554))


# The authors' own rows, copied from the paper apart from the data file.
@pytest.mark.parametrize(
    ("table", "values"),
    [
        ("table1-300w", [3.36, 5.74, 3.82]),
        ("table1-aflw", [1.84, 1.59]),
        ("table2", [54.61, 0.17]),
        ("table3-nme", [5.62, 10.23, 6.09, 5.55, 5.68, 6.92, 6.38]),
        ("table3-fr", [8.28, 34.35, 8.28, 6.73, 10.19, 15.08, 9.44]),
        ("table3-auc", [0.484, 0.192, 0.448, 0.496, 0.473, 0.398, 0.434]),
        ("table5", [1.87, 1.59, 1.96, 1.74, 2.03, 1.74, 2.13, 1.86, 2.38, 2.03, 2.74, 2.23, 3.05, 2.56, 4.93, 4.04]),
        ("table6", [5.62, 6.51, 6.73, 7.68, 8.39, 9.66, 15.79]),
    ],
)
def test_the_papers_own_rows(table, values):
    assert row_of(table, "3FabRec") == values


def test_limited_data_columns_are_labeled_with_their_sizes():
    own = dict(zip(((c.subset, c.shots) for c in TABLES["table4"].columns), row_of("table4", "3FabRec"), strict=True))
    full = {3148: 3.82, 630: 4.31, 315: 4.47, 157: 4.75, 50: 5.10, 10: 5.61, 1: 9.92}
    assert {shots: own["full", shots] for shots in full} == full
    common = {3148: 3.36, 315: 3.88, 157: 4.22, 50: 4.55, 10: 4.96, 1: 8.45}
    assert {shots: own["common", shots] for shots in common} == common
    for table, sizes in (("table4", 3148), ("table5", 20000), ("table6", 7500)):
        for column in TABLES[table].columns:
            if column.size.endswith("%"):
                assert column.shots == round(sizes * float(column.size.rstrip(" %")) / 100)
            else:
                assert column.shots == int(column.size)


def test_every_row_fits_its_table_and_says_where_it_is_from():
    for table in PUBLISHED.tables:
        source = PUBLISHED.sources[table.source]
        for row in table.rows:
            assert len(row.values) == len(table.columns), (table.id, row.method)
            assert all(value is None or 0 < float(value) < 100 for value in row.values)
            if table.number is None:
                assert row.source
            else:
                assert row.method == "3FabRec" or row.reference in source["references"]
        assert table.normalizer == get_scheme(table.scheme).normalizer.to_dict()
        assert len({row.method for row in table.rows}) == len(table.rows)
    assert sorted({table.number for table in PUBLISHED.tables if table.number}) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("table", ["table1-300w", "table4", "since2020-300w"])
def test_full_300w_is_the_mean_of_its_parts(table):
    """554 common and 135 challenging faces: a slip in a number would show, up to 0.1 that papers are off."""
    checked = 0
    for row in TABLES[table].rows:
        for index in range(0, len(row.values), 3):
            if None not in row.values[index : index + 3]:
                common, challenging, full = map(float, row.values[index : index + 3])
                assert (554 * common + 135 * challenging) / 689 == pytest.approx(full, abs=0.1), (row.method, index)
                checked += 1
    assert checked >= 9


def test_wflw_subsets_agree_with_the_whole():
    """Errors, failures and areas rank the methods alike, and large poses are the hardest for everyone."""
    for row in TABLES["table3-nme"].rows:
        values = [float(value) for value in row.values]
        assert max(values) == values[1] and min(values) < values[0] < max(values)
    for row in TABLES["table3-fr"].rows:
        values = [float(value) for value in row.values]
        assert max(values) == values[1] and min(values) < values[0] < max(values)
    for row in TABLES["table3-auc"].rows:
        values = [float(value) for value in row.values if value is not None]
        assert len(values) == 1 or min(values) == values[1]


def test_rows_over_another_length_are_marked():
    (reported,) = [row for row in TABLES["table4"].rows if row.normalizer]
    assert reported.method.startswith("RCN+") and "not comparable" in reported.note
    (rescaled,) = [row for row in TABLES["table4"].rows if row.method == "RCN+ (rescaled)"]
    assert "escaled" in rescaled.note and reported.values[2] == "4.90" and rescaled.values[2] == "3.46"


def test_a_common_subset_stands_in_one_column_of_table_1():
    assert [table.id for table in tables_beside(COMMON)] == ["table1-300w", "since2020-300w"]
    measured, beside, _ = make_tables(COMMON, "mine", get_scheme("300w"))
    assert measured.ours is None and measured.rows[1][:3] == ("common", "554", "4.757")
    assert beside.rows[beside.ours] == ("mine (ours)", "4.76", "-", "-")
    assert ("3FabRec", "3.36", "5.74", "3.82") in beside.rows
    assert [row[0] for row in beside.rows][:3] == ["SDM [51] (a)", "LBF [37] (a)", "CFSS [58]"]
    assert beside.notes[0].startswith("(a) Reportedly over the distance of the eye centers")
    notes = " ".join(beside.notes)
    for words in ("Table 1", "given boxes", "sub-pixel", "without averaging", "outer eye corners", "above 10 %"):
        assert words in notes
    assert "common 554 faces" in notes and "does not hold the test sets challenging and full" in notes
    assert "only a part of that test set" not in notes


def test_part_of_a_test_set_is_said_to_be_one():
    part = make_result("300w", summary(4.0, count=100), common=summary(4.0, count=100))
    notes = " ".join(make_tables(part, "mine")[1].notes)
    assert "common 100 faces of 554, only a part of that test set" in notes


def test_the_whole_of_300w_fills_tables_1_and_2():
    subsets = {"full": summary(4.0, count=689), "common": summary(3.5, count=554)}
    subsets |= {"challenging": summary(6.0, count=135), "private": summary(5.0, 0.5, 0.512345, count=600)}
    result = make_result("300w", summary(4.4, count=1289), **subsets)
    first, private, _ = tables_beside(result)
    assert (first.number, private.number) == (1, 2)
    assert measured_cells(result, first) == [3.5, 6.0, 4.0]
    assert measured_cells(result, private) == [pytest.approx(51.2345), 0.5]  # the paper gives this AUC in percent
    table = make_tables(result, "mine")[2]
    assert table.rows[table.ours] == ("mine (ours)", "51.23", "0.50")
    assert "Our data covers only a part" not in " ".join(table.notes)


def test_wflw_is_recognized_by_its_number_of_faces():
    pose = summary(9.0, 30.0, 0.2, count=326)
    result = make_result("wflw", summary(6.0, 9.0, 0.45678, count=2500), pose=pose)
    tables = {table.title.split(" (")[0]: table for table in make_tables(result, "mine")[1:]}
    assert list(tables) == [
        "WFLW, NME in %",
        "WFLW, failure rate at 10 %, in %",
        "WFLW, AUC at 10 %",
        "WFLW, full test set",
    ]
    ours = [table.rows[table.ours] for table in tables.values()]
    assert ours[0][:4] == ("mine (ours)", "6.00", "9.00", "-")
    assert ours[1][:4] == ("mine (ours)", "9.00", "30.00", "-")
    assert ours[2][:4] == ("mine (ours)", "0.457", "0.200", "-")  # the paper gives this AUC as a fraction
    train = make_result("wflw", summary(6.0, count=7500), pose=pose)
    (alone,) = make_tables(train, "mine")
    assert "holds none of their test sets (full 2500 faces)" in alone.notes[-1]


def test_aflw_stands_in_table_1():
    result = make_result("aflw", summary(2.0, count=4386), frontal=summary(1.7, count=1314))
    table = make_tables(result, "mine")[1]
    assert table.rows[table.ours] == ("mine (ours)", "2.00", "1.70")


def test_few_shots_stand_in_the_column_of_their_number():
    _, table = make_tables(COMMON, "mine", shots=10)
    ours = dict(zip(table.header, table.rows[table.ours], strict=True))
    assert "Table 4" in table.title and ours["10 Com"] == "4.76"
    assert {label for label, value in ours.items() if value != "-"} == {"method", "10 Com"}
    assert "trained on 10 annotated faces" in table.notes[-1]
    _, table = make_tables(COMMON, "mine", shots=315)
    assert dict(zip(table.header, table.rows[table.ours], strict=True))["10 % Com"] == "4.76"


def test_a_number_of_shots_that_nobody_published_gets_columns_of_its_own():
    _, table = make_tables(COMMON, "mine", shots=100)
    assert table.header[-3:] == ("100 Com", "100 Chall.", "100 Full")
    assert table.rows[table.ours][-3:] == ("4.76", "-", "-")
    assert all(row[-3:] == ("-", "-", "-") for row in table.rows[:-1])
    assert all(len(row) == len(table.header) for row in table.rows)
    assert len(TABLES["table4"].columns) == 21  # the published table itself is as it was


def test_results_over_another_length_or_threshold_are_not_set_beside():
    other = copy.deepcopy(COMMON) | {"normalizer": {"kind": "box"}}
    (table,) = make_tables(other, "mine")
    assert "measured over another length" in table.notes[-1]
    result = make_result("wflw", summary(6.0, count=2500)) | {"threshold": 8.0}
    assert [table.id for table in tables_beside(result)] == ["table3-nme", "since2020-wflw"]
    last = make_tables(result, "mine")[-1]
    assert last.rows[last.ours] == ("mine (ours)", "6.00", "-", "-")
    assert "ours were measured for another threshold" in " ".join(last.notes)


def test_a_users_own_scheme_has_a_table_of_its_own_only():
    result = make_result("mtfl", summary(float("nan"), count=3))
    (table,) = make_tables(result, "mine")
    assert table.rows == (("all the data", "3", "-", "1.00", "0.5000", "-"),)
    assert len(table.notes) == 1


@pytest.mark.parametrize(
    ("scheme", "normalizer", "words"),
    [
        ("wflw", {"kind": "points", "points": [60, 72]}, "the distance of the outer eye corners (points 60 and 72)"),
        ("mtfl", {"kind": "points", "points": [0, 1]}, "the distance of the eye centers (points 0 and 1)"),
        (
            "300w",
            {"kind": "points", "points": [[36, 37, 38, 39, 40, 41], [42, 43, 44, 45, 46, 47]]},
            "the distance of the eye centers (points 36 to 41 and 42 to 47)",
        ),
        (None, {"kind": "points", "points": [[1, 3], 4]}, "the distance of two points (points 1+3 and 4)"),
        ("300w", {"kind": "points", "points": [8, 27]}, "the distance of two points (points 8 and 27)"),
        (None, {"kind": "box"}, "the longer side of the face box"),
        ("aflw", {"kind": "box_diagonal"}, "the diagonal of the face box"),
    ],
)
def test_lengths_are_described_in_words(scheme, normalizer, words):
    assert describe_length(normalizer, get_scheme(scheme) if scheme else None) == words


AWKWARD = Table("50 % of a|b_c", ("method", "x"), (("M³ & co", "1.0"), ("a\nb* (ours)", "-")), ours=1, notes=("$1",))


def test_markdown_is_escaped_and_ours_is_bold():
    lines = to_markdown([AWKWARD]).splitlines()
    assert lines[0] == r"**50 % of a\|b\_c**"
    assert lines[2:6] == ["| method | x |", "| --- | ---: |", "| M³ & co | 1.0 |", r"| **a b\* (ours)** | - |"]
    assert lines[-1] == "$1"


def test_latex_is_escaped_and_ours_is_below_a_rule():
    text = to_latex([AWKWARD])
    assert r"\caption{50 \% of a|b\_c}" in text
    assert r"M\textsuperscript{3} \& co & 1.0 \\" in text
    rows = [line.strip() for line in text.splitlines()]
    assert rows[rows.index(r"\textbf{a b* (ours)} & -- \\") - 1] == r"\midrule"
    assert r"\par\footnotesize \$1" in text


def test_latex_of_all_published_tables_is_well_formed():
    """Every environment is closed, every row has its cells, and nothing is left unescaped."""
    results = [
        make_result("300w", summary(4.4, count=1289), common=summary(3.5), private=summary(5.0)),
        make_result("wflw", summary(6.0, count=2500)),
        make_result("aflw", summary(2.0, count=4386)),
    ]
    tables = [table for result in results for shots in (None, 1) for table in make_tables(result, "x", shots=shots)]
    assert len(tables) == 6 + (3 + 1) + (4 + 1) + (1 + 1)  # one of ours for each, and the published ones
    text = to_latex(tables)
    for block in re.findall(r"\\begin{tabular}{(l+r+)}\n(.*?)\\end{tabular}", text, re.DOTALL):
        columns, body = block
        rows = [line for line in body.splitlines() if line.endswith(r"\\")]
        assert rows and all(len(re.findall(r"(?<!\\)&", row)) == len(columns) - 1 for row in rows)
        assert not re.findall(r"(?<!\\)[%$#_]", body)
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == len(tables)
    assert text.isascii()
