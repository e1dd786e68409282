"""Pictures as people have them: every kind of file gives the same picture and the same face, wherever it goes in.

docs/own-data.md has the table.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


pytest.importorskip("datasets")
pytest.importorskip("pillow_heif")

from transformers import pipeline  # noqa: E402

import fabrec_hf  # noqa: E402
from fabrec_hf.cli import main  # noqa: E402
from fabrec_hf.data import load_faces  # noqa: E402
from fabrec_hf.data.decoding import decode_pictures  # noqa: E402
from fabrec_hf.demo.uploads import Limits, decode_picture  # noqa: E402
from fabrec_hf.inference.input_files import open_noted_picture  # noqa: E402
from fabrec_hf.model.image_inputs import load_rgb  # noqa: E402
from support.picture_kinds import KINDS, SEVERAL, as_seen  # noqa: E402


ROOT = Path(__file__).parents[2]
SIDE = 256
# Mean difference from what was stored, in levels of 255: of CMYK without a profile, of 256 colors, of strong
# compression.
CLOSE = 5.0


@pytest.fixture(scope="module")
def photograph():
    if not (ROOT / "examples").is_dir():
        pytest.skip("only in a checkout")
    return Image.open(ROOT / "examples/astronaut.jpg").convert("RGB").crop((96, 16, 96 + SIDE, 16 + SIDE))


@pytest.fixture(scope="module")
def folder(photograph, tmp_path_factory):
    """One file of each kind."""
    place = tmp_path_factory.mktemp("kinds")
    for name, make in KINDS.items():
        (place / name).write_bytes(make(photograph))
    return place


@pytest.fixture(scope="module")
def detected(folder, tmp_path_factory):
    """What `fabrec detect` writes and says of the folder: records by the name of the picture, and standard error."""
    with pytest.MonkeyPatch.context() as patch:
        said = []
        patch.setattr("fabrec_hf.cli.detect.say", lambda text, *_: said.append(text))
        output = tmp_path_factory.mktemp("found")
        assert main(["detect", str(folder), "--output", str(output)]) == 0, said
    records = [json.loads(path.read_text()) for path in output.glob("*.json")]
    return {Path(record["image"]).name: record for record in records}, said


@pytest.fixture(scope="module")
def piped(folder):
    """What the pipeline finds, by the name of the picture."""
    detect = pipeline("face-landmark-detection", model=fabrec_hf.weights_path("3fabrec-300w"))
    return dict(zip(KINDS, detect([str(folder / name) for name in KINDS]), strict=True))


@pytest.fixture(scope="module")
def converted(folder, tmp_path_factory):
    """What training gets of the folder by way of `fabrec convert`, by the name of the picture; and the report."""
    output = tmp_path_factory.mktemp("converted") / "faces"
    with pytest.MonkeyPatch.context() as patch:
        said = []
        patch.setattr("fabrec_hf.cli.convert.say", lambda text, *_: said.append(text))
        assert main(["convert", "imagefolder", str(folder), str(output)]) == 0, said
    rows = load_faces(output, columns=("image", "name"))
    pixels = decode_pictures(rows.select_columns(["image"]), SIDE, progress=False)
    return dict(zip(rows["name"], pixels.permute(0, 2, 3, 1).numpy(), strict=True)), "\n".join(said)


@pytest.mark.parametrize("name", KINDS)
def test_every_reader_sees_the_picture_that_was_stored(name, folder, photograph, converted):
    path, wanted = folder / name, as_seen(name, photograph)
    opened, note = open_noted_picture(path)
    space = decode_picture(path.read_bytes(), name, Limits())
    seen = {
        "fabrec detect": load_rgb(opened).permute(1, 2, 0).numpy(),
        "pipeline": load_rgb(str(path)).permute(1, 2, 0).numpy(),
        "Space": np.asarray(space.image),
        "data": converted[0][name],
    }
    for reader, pixels in seen.items():
        assert pixels.shape == wanted.shape, reader
        assert np.abs(pixels - wanted).mean() < CLOSE, reader
    expected = "it holds 3 pictures, of which the first is taken." if name in SEVERAL else ""
    assert note == space.note == expected


@pytest.mark.parametrize("name", KINDS)
def test_the_face_is_found_at_the_same_place(name, detected, piped):
    records, _ = detected
    (wanted,) = records["plain.png"]["faces"]
    (by_command,), (by_pipeline,) = records[name]["faces"], piped[name]
    for face in (by_command, by_pipeline):
        assert np.abs(np.array(face["keypoints"]) - wanted["keypoints"]).max() < 3.0
    np.testing.assert_allclose(by_command["keypoints"], by_pipeline["keypoints"], atol=0.1)


def test_files_of_several_pictures_are_named(folder, detected, converted):
    _, said = detected
    notes = sorted(line for line in said if "of which the first is taken" in line)
    assert notes == sorted(
        f"fabrec detect: {folder / name}: it holds 3 pictures, of which the first is taken." for name in SEVERAL
    )
    assert "4 files hold several pictures, of which the first is taken." in converted[1]
    assert f"| {len(KINDS)} |" in converted[1]


def test_heic_without_its_reader_is_said_in_every_place(folder, monkeypatch):
    import sys

    from fabrec_hf.data.picture_files import heic_is_readable
    from fabrec_hf.errors import ImageError

    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    heic_is_readable.cache_clear()
    registered = {name: Image.OPEN.pop(name) for name in ("HEIF",) if name in Image.OPEN}
    ids = [name for name in Image.ID if name != "HEIF"]
    monkeypatch.setattr(Image, "ID", ids)
    try:
        path = folder / "phone.heic"
        for read in (open_noted_picture, lambda path: decode_picture(path.read_bytes(), path.name, Limits())):
            with pytest.raises(ImageError, match=r"pip install 'fabrec-hf\[heic\]'"):
                read(path)
        with pytest.raises(ValueError, match=r"phone\.heic\) cannot be read: HEIC needs pillow-heif: pip install"):
            load_rgb(str(path))
    finally:
        Image.OPEN.update(registered)
        heic_is_readable.cache_clear()
