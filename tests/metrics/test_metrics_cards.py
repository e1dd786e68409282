"""Metric cards and docstrings: every example runs and prints what is written, and every card says what it must."""

import doctest
import importlib
import inspect
import re
from pathlib import Path

import pytest

from fabrec_hf import metrics


pytest.importorskip("evaluate")

FOLDER = Path(metrics.__file__).parent
MODULES = ("auc", "ced", "face_landmarks", "failure_rate", "jitter", "nme")


def run_examples(text: str, name: str) -> int:
    """Run the examples of a text in one namespace; returns how many there are."""
    test = doctest.DocTestParser().get_doctest(text, {}, name, name, 0)
    report: list[str] = []
    results = doctest.DocTestRunner(verbose=False).run(test, out=report.append)
    assert not results.failed, "".join(report)
    return results.attempted


def card(name: str) -> str:
    return (FOLDER / name / "README.md").read_text(encoding="utf-8")


def own_class(name: str) -> type:
    module = importlib.import_module(f"fabrec_hf.metrics.{name}.{name}")
    return next(value for value in vars(module).values() if getattr(value, "__module__", "") == module.__name__)


def test_there_is_a_card_for_every_module():
    assert sorted(path.parent.name for path in FOLDER.glob("*/README.md")) == sorted(MODULES)
    assert sorted(path.stem for path in FOLDER.glob("*/*.py") if path.stem == path.parent.name) == sorted(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_the_card_print_what_it_says(name):
    blocks = re.findall(r"```python\n(.*?)```", card(name), flags=re.DOTALL)
    assert run_examples("\n".join(blocks), name) >= 9


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_the_description_print_what_it_says(name):
    description = own_class(name)().info.inputs_description
    assert run_examples(description, name) >= 6


@pytest.mark.parametrize("name", ["normalizers", "landmark_errors", "sequence_jitter"])
def test_examples_of_docstrings_print_what_they_say(name):
    module = importlib.import_module(f"fabrec_hf.metrics.{name}")
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("name", MODULES)
def test_the_header_is_that_of_a_metric_space(name):
    huggingface_hub = pytest.importorskip("huggingface_hub")
    data = huggingface_hub.SpaceCard(card(name)).data.to_dict()
    assert data["tags"] == ["evaluate", "metric"]
    assert data["sdk"] == "static" and "app_file" not in data
    assert {data["colorFrom"], data["colorTo"]} <= set("red yellow green blue indigo purple pink gray".split())
    assert all(data[key] for key in ("title", "emoji", "description", "license"))


@pytest.mark.parametrize("name", MODULES)
def test_the_card_covers_what_a_reader_needs(name):
    text = card(name)
    sections = re.findall(r"^#{2,3} (.*)$", text, flags=re.MULTILINE)
    expected = "Description, How to use, Inputs, Output, Examples, Normalizers, What is missing, Limits, Citation"
    assert sections == expected.split(", ")
    module = own_class(name)
    arguments = set(inspect.signature(module.score_rows).parameters) - {"self", "arguments"}
    if name != "jitter":
        arguments |= set(inspect.signature(module.score).parameters) - {"self", "faces"}
    inputs = text.partition("### Inputs")[2].partition("### Output")[0]
    documented = set(re.findall(r"^- `(\w+)`", inputs, flags=re.MULTILINE))
    assert documented == arguments
    description = module().info.inputs_description.partition("Returns:")[0]
    assert set(re.findall(r"^    (\w+):", description, flags=re.MULTILINE)) == arguments


@pytest.mark.parametrize("name", MODULES)
def test_the_card_names_everything_that_comes_back(name):
    face = [[0.0, 0.0], [10.0, 0.0], [5.0, 5.0], [2.0, 8.0], [8.0, 8.0]]
    extras = {"per_image", "per_part", "per_sequence"}
    module = own_class(name)
    method = module.score_rows if name == "jitter" else module.score
    flags = {flag: True for flag in extras & set(inspect.signature(method).parameters)}
    results = module().compute(predictions=[face] * 3, references=[face] * 3, scheme="mtfl", **flags)
    output = card(name).partition("### Output")[2].partition("### Examples")[0]
    assert set(results) <= set(re.findall(r"`(\w+)`", output))
    returns = module().info.inputs_description.partition("Returns:")[2].partition("Examples:")[0]
    assert set(results) == set(re.findall(r"(\w+):", returns))


@pytest.mark.parametrize("name", MODULES)
def test_a_module_alone_imports_only_packages_by_their_names(name):
    """Pushed as a Space, a module has no file beside it; and the scanner of imports reads one module a line."""
    for line in (FOLDER / name / f"{name}.py").read_text().splitlines():
        if re.match(r"(import|from)\b", line):
            assert re.fullmatch(r"import [\w.]+( as \w+)?|from [\w.]+ import [\w, ]+", line), line
            assert not line.startswith("from .")
