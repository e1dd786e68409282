"""Files of the annotation tools with any part of them replaced: they are read, or refused in one line."""

import copy
import json

import numpy as np
import pytest
from PIL import Image


pytest.importorskip("datasets")

from fabrec_hf.data.formats.annotated import FaceToWrite, PictureToWrite  # noqa: E402
from fabrec_hf.data.formats.tool_writer import tool_files  # noqa: E402
from fabrec_hf.data.readers import open_source  # noqa: E402
from fabrec_hf.errors import FabRecError  # noqa: E402
from fabrec_hf.model.known_schemes import LandmarkScheme  # noqa: E402


SCHEME = LandmarkScheme("two", 2, ("eye", "nose"))
FACE = FaceToWrite(np.array([[1, 2], [3, 4]]), [True, False], (0, 1, 5, 6))
PICTURE = PictureToWrite("a.png", (20, 10), 512, [FACE])
REPLACEMENTS = (None, True, -1, 10**400, "x", "", [], [3], {}, {"a": "b"})


def places(content, path=()):
    """Yield the way to every part of a document."""
    yield path
    for key, value in content.items() if isinstance(content, dict) else enumerate(content):
        if isinstance(value, (dict, list)):
            yield from places(value, (*path, key))
        else:
            yield (*path, key)


def replaced(content, path, value):
    if not path:
        return value
    content = copy.deepcopy(content)
    part = content
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    return content


@pytest.mark.parametrize(
    ("tool", "name"), [("labelme", "a.json"), ("labelstudio", "tasks.json"), ("via", "via_project.json")]
)
def test_any_part_of_a_file_may_be_anything(tmp_path, tool, name):
    Image.new("RGB", (20, 10)).save(tmp_path / "a.png")
    file, whole = tmp_path / name, json.loads(tool_files(tool, [PICTURE], SCHEME)[name])
    tried = refused = 0
    for path in places(whole):
        for value in REPLACEMENTS:
            file.write_text(json.dumps(replaced(whole, path, value)))
            tried += 1
            try:
                list(open_source(tool, file, scheme=SCHEME).rows("train"))
            except FabRecError as error:
                refused += 1
                assert "\n" not in str(error)
    assert tried > 200 and 0 < refused < tried
