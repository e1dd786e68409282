"""JSON written piece by piece is JSON, and looks as if it had been written at once."""

import io
import json

import pytest

from fabrec_hf.common.json_array import ArrayWriter, write_members


def written(entries, indent=0):
    file = io.StringIO()
    array = ArrayWriter(file, indent)
    for entry in entries:
        array.add(entry)
    array.close()
    return file.getvalue()


def test_entries_stand_between_brackets_one_below_the_other():
    assert written([["1"], ['{"a"', ": 2}"]]) == '[\n1,\n{"a": 2}\n]'
    assert json.loads(written([])) == []
    assert written([["1"], ["2"]], indent=4) == "[\n    1,\n    2\n  ]"


@pytest.mark.parametrize("last", [{"e": {"f": {}}}, {"e": "} ]\n"}, {"e": [[1], {"g": "}\n"}]}])
def test_members_before_and_after_an_array_make_one_object(last):
    """What ends with brackets, or with text that looks like them, keeps its own."""
    header = {"a": 1, "b": [1, 2], **last}
    file = io.StringIO()
    file.write("{")
    write_members(file, header, first=True)
    file.write(',\n  "frames": ')
    array = ArrayWriter(file, 4)
    array.add(["[3]"])
    array.close()
    write_members(file, last, first=False)
    file.write("\n}\n")
    assert json.loads(file.getvalue()) == header | {"frames": [[3]]} | last
    whole = io.StringIO()
    whole.write("{")
    write_members(whole, header, first=True)
    assert whole.getvalue() + "\n}" == json.dumps(header, indent=2)
