"""The Python of the documentation runs as it stands and says what the pages say; so do the examples of docstrings."""

import doctest
import importlib
import pkgutil
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fabrec_hf
from support.documents import PAGES, ROOT, code_blocks, name_of


datasets = pytest.importorskip("datasets")
pytest.importorskip("evaluate")

ELSEWHERE = {"docs/hub.md": "tests/docs/test_documented_hub.py runs it, against the Hub of the tests"}
"""Pages whose Python is not run here, and why."""

SNIPPETS = [
    pytest.param(page, code, id=f"{name_of(page)}-{number}")
    for page in PAGES
    if name_of(page) not in ELSEWHERE
    for number, code in enumerate(code_blocks(page, "python"))
]
CARDS = sorted(ROOT.glob("model_cards/*.md"))
EXAMPLES = [
    module.name
    for module in pkgutil.walk_packages(fabrec_hf.__path__, "fabrec_hf.")
    if ".weights" not in module.name
    and not re.fullmatch(r"fabrec_hf\.metrics\.(\w+)\.\1", module.name)  # tests/metrics runs these
    and (spec := importlib.util.find_spec(module.name)) is not None
    and ">>> " in Path(str(spec.origin)).read_text(encoding="utf-8")
]


def write_faces_of_300w(folder: Path) -> None:
    """Write a folder of the layout of a converted 300-W: 12 faces of 68 points to learn from and 2 to test with."""
    random = np.random.default_rng(0)
    folder.mkdir()
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "landmarks": datasets.List(datasets.List(datasets.Value("float32"))),
            "box": datasets.List(datasets.Value("float32")),
        }
    )
    for split, count in (("train", 12), ("test", 2)):
        rows = {
            "image": [Image.new("RGB", (40, 40), (number, 0, 0)) for number in range(count)],
            "landmarks": random.uniform(5, 35, (count, 68, 2)).tolist(),
            "box": [[5.0, 5.0, 30.0, 30.0]] * count,
        }
        datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / f"{split}-00000-of-00001.parquet")


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    """A folder that looks like the root of a checkout with a photograph and a converted 300-W in it."""
    for name in ("examples", "fabrec_hf"):
        (tmp_path / name).symlink_to(ROOT / name)
    shutil.copy(ROOT / "examples/astronaut.jpg", tmp_path / "photo.jpg")
    write_faces_of_300w(tmp_path / "300w")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(code: str) -> dict:
    """Run a snippet; returns its names."""
    names: dict = {"__name__": "snippet"}
    exec(compile(code, "snippet", "exec"), names)
    return names


@pytest.mark.parametrize("page, code", SNIPPETS)
def test_snippets_run_and_find_what_they_say(page, code, checkout, capsys):
    names = run(code)
    printed = capsys.readouterr().out.splitlines()
    lines = [line for line in code.splitlines() if line.startswith("print(")]
    expected = [re.search(r"#\s*(-?\d+(\.\d+)?)$", line) for line in lines]
    for line, value in zip(printed[-len(lines) :] if lines else [], expected, strict=True):
        assert value is None or float(line) == pytest.approx(float(value[1]), abs=1e-4)
    if "faces" in names and isinstance(names["faces"], list):
        (face,) = names["faces"]
        x, y = np.asarray(face["keypoints"])[30]
        # The tip of the astronaut's nose, read off the photograph by eye.
        assert abs(x - 223) < 5 and abs(y - 127) < 5
        assert 0 <= float(min(face["scores"])) and float(max(face["scores"])) <= 1
    if "five" in names:
        check_five_points(checkout)


def check_five_points(folder: Path) -> None:
    """What the page on experiments makes of 300-W: ten faces to learn from, whose eyes are the means of six points."""
    original = datasets.Dataset.from_parquet(str(folder / "300w/train-00000-of-00001.parquet"))
    made = datasets.Dataset.from_parquet(str(folder / "five/train-00000-of-00001.parquet"))
    assert len(made) == 10
    points = original[3]["landmarks"]
    left = [sum(points[index][axis] for index in range(36, 42)) / 6 for axis in (0, 1)]
    np.testing.assert_allclose(made[3]["landmarks"][0], left, rtol=1e-5)
    np.testing.assert_allclose(made[3]["landmarks"][2:], [points[30], points[48], points[54]], rtol=1e-6)


@pytest.mark.parametrize("card", [pytest.param(card, id=card.stem) for card in CARDS])
def test_snippets_of_the_model_cards_run(card, checkout):
    (code, *others) = code_blocks(card, "python")
    names = run("\n".join([code, *others]))
    if "faces" in names:
        (face,) = names["faces"]
        counts = {"3fabrec-mesh": 128, "3fabrec-mesh-fairface": 128} | dict.fromkeys(
            ("3fabrec-wflw", "3fabrec-wflw-1shot", "3fabrec-wflw-10shot"), 98
        )
        assert len(face["keypoints"]) == counts.get(card.stem, 68)
        points, (x, y, width, height) = np.asarray(face["keypoints"]), face["bbox"]
        assert (np.abs(points.mean(0) - [x + width / 2, y + height / 2]) < [width / 4, height / 4]).all()
    else:
        assert len(names) > 2


def test_examples_of_docstrings_are_found():
    assert {"fabrec_hf.model.modeling_fabrec", "fabrec_hf.metrics.normalizers"} <= set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_of_docstrings_print_what_they_say(name, checkout):
    module = importlib.import_module(name)
    failed, attempted = doctest.testmod(module, extraglobs={"torch": __import__("torch")})
    assert attempted and not failed
