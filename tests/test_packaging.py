import re
from pathlib import Path

import pytest
from PIL import Image

import fabrec_hf


ROOT = Path(__file__).parents[1]

if not (ROOT / "pyproject.toml").is_file():
    pytest.skip("only in a checkout", allow_module_level=True)


def test_no_index_and_no_secret_host():
    for name in ("pyproject.toml", "Makefile", ".ci/run"):
        text = (ROOT / name).read_text()
        assert not re.search(r"index-url|extra-index|find-links|https?://", text)


def test_the_version_is_a_number_of_three_parts():
    assert re.fullmatch(r"\d+\.\d+\.\d+", fabrec_hf.__version__)


def test_ci_runs_quality_and_tests():
    script = ROOT / ".ci/run"
    assert script.stat().st_mode & 0o111
    assert "set -euo pipefail" in script.read_text()
    assert script.read_text().rstrip().endswith("make quality test")


def test_examples_are_small_and_have_a_source():
    readme = (ROOT / "examples/README.md").read_text()
    pictures = sorted((ROOT / "examples").glob("*.jpg"))
    assert len(pictures) >= 2
    for path in pictures:
        assert f"`{path.name}`" in readme
        assert path.stat().st_size < 150_000
        assert not Image.open(path).getexif()
