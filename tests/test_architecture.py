"""The rooms of the package: each imports the rooms below it alone (docs/architecture.md draws them)."""

import ast
import importlib
import re
import sys
from pathlib import Path

import pytest

import fabrec_hf


PACKAGE = Path(fabrec_hf.__file__).parent

# Every room and the rooms that it may import, from the ground up.
ROOMS = {
    "errors": "",
    "model": "",
    "common": "errors",
    "checkpoints": "errors common model",
    "metrics": "errors common model",
    "data": "errors common model",
    "inference": "errors common model checkpoints metrics data",
    "learning": "errors model checkpoints metrics data",
    "evaluation": "errors common model metrics data inference learning",
    "export": "errors common model checkpoints learning",
    "hub": "errors common model checkpoints data inference evaluation",
    "demo": "errors common model checkpoints metrics data inference learning hub",
    "cli": "errors common model checkpoints metrics data inference learning evaluation export hub demo",
}


def imported_rooms(file: Path) -> set[str]:
    """The rooms that a file imports anywhere, within functions too; "" is `fabrec_hf` itself."""
    place = ("fabrec_hf", *file.relative_to(PACKAGE).parent.parts)
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            start = ".".join(place[: len(place) + 1 - node.level]) + "." if node.level else ""
            module = (start + (node.module or "")).rstrip(".")
            names = [f"{module}.{alias.name}" for alias in node.names] if module == "fabrec_hf" else [module]
        parts = [name.split(".") for name in names]
        found |= {part[1] if len(part) > 1 else "" for part in parts if part[0] == "fabrec_hf"}
    return found


@pytest.mark.parametrize("room", [room for room in ROOMS if room != "errors"])
def test_a_room_imports_the_rooms_below_it_alone(room):
    below = list(ROOMS)[: list(ROOMS).index(room)]
    allowed = {room, *ROOMS[room].split()}
    assert allowed - {room} <= set(below)
    used = {name for file in (PACKAGE / room).rglob("*.py") for name in imported_rooms(file)} - {"__version__"}
    assert used <= allowed


def test_the_page_has_the_same_floors_and_names_files_that_are_there():
    page = (PACKAGE.parent / "docs/architecture.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", page, flags=re.MULTILINE))
    rows = {room: " ".join(re.findall(r"`(\w+)`", cell)) for room, cell in rows.items() if room in ROOMS}
    assert rows.pop("cli") == "" and rows == {
        room: below for room, below in ROOMS.items() if room not in ("cli", "errors")
    }
    # The paragraph of a room, from its bold name to the next one, names its modules without their folder.
    for room, text in re.findall(r"^\*\*`(\w+)/`\*\*(.+?)(?=^\*\*`|^## )", page, flags=re.MULTILINE | re.DOTALL):
        modules = {path.stem for path in PACKAGE.rglob("*.py")} | {path.parent.name for path in PACKAGE.rglob("*.py")}
        words = {word for word in re.findall(r"`([a-z_]+)`", text) if "_" in word}
        assert words - modules <= {"auto_map", "save_pretrained"}, room


def test_every_folder_is_a_room():
    assert {init.parent.name for init in PACKAGE.glob("*/__init__.py")} == set(ROOMS) - {"errors"}


def test_the_models_files_import_their_siblings_alone():
    """transformers copies a file and what it imports as `from .name import y` into a checkpoint, flat."""
    for file in (PACKAGE / "model").glob("*.py"):
        levels = {node.level for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ImportFrom)}
        assert levels <= {0, 1}, file
        assert imported_rooms(file) <= {"model"}, file


def test_the_places_that_the_page_names_are_there():
    page = (PACKAGE.parent / "docs" / "architecture.md").read_text()
    section = page.split("## Where to find it\n")[1].split("\n## ")[0]
    places = [re.findall("`([^`]+)`", line.split("|")[2]) for line in section.splitlines()[3:] if "`" in line]
    assert len(places) == 10
    for *symbols, place in places:
        file = PACKAGE.parent / place.split()[0] if ".py" in place else PACKAGE / f"{place}.py"
        defined = re.findall(r"^\s*(?:def|class) (\w+)", file.read_text(), re.MULTILINE)
        assert {name for symbol in symbols for name in symbol.split(".")} <= set(defined), place


FILE_LINES, FUNCTION_LINES = 400, 60


def own_lines(function: ast.AST) -> int:
    """The lines of a function without those of the functions in it, which are counted by themselves."""
    count, inside = function.end_lineno - function.lineno + 1, list(ast.iter_child_nodes(function))
    while inside:
        node = inside.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            count -= node.end_lineno - min(entry.lineno for entry in (node, *node.decorator_list)) + 1
        else:
            inside += ast.iter_child_nodes(node)
    return count


def test_own_lines_are_those_outside_of_inner_functions():
    lines = ["def outer():", "    a = 1", "    @mark", "    def inner():", "        return 2", "    if a:"]
    assert own_lines(ast.parse("\n".join([*lines, "        def other(): pass"])).body[0]) == 3  # the def, a and the if


@pytest.mark.parametrize("folder", ["fabrec_hf", "training", "space", "tests"])
def test_files_and_functions_are_short(folder):
    found = {}
    for file in (PACKAGE.parent / folder).rglob("*.py"):
        text = file.read_text()
        found[str(file.relative_to(PACKAGE.parent))] = len(text.splitlines()) - FILE_LINES
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                found[f"{file.name}: {node.name}"] = own_lines(node) - FUNCTION_LINES
    assert found and {name: over for name, over in found.items() if over > 0} == {}


@pytest.mark.parametrize("former", ["device_inference", "face_detection", "runtimes"])
def test_documented_modules_say_where_they_moved(former):
    sys.modules.pop(f"fabrec_hf.{former}", None)
    with pytest.warns(FutureWarning, match=rf"fabrec_hf\.{former} moved to fabrec_hf\.\w+\.\w+") as warned:
        module = importlib.import_module(f"fabrec_hf.{former}")
    new = importlib.import_module(str(warned[0].message).split(" moved to ")[1])
    assert module.__all__ == new.__all__
    assert all(getattr(module, name) is getattr(new, name) for name in new.__all__)


def test_benchmarks_find_the_training_scripts_that_they_import():
    """A benchmark is run by its path: Python then looks for modules beside it, and not in the folder above."""
    training = PACKAGE.parent / "training"
    scripts = {path.stem for path in training.glob("*.py")}
    for path in sorted((training / "benchmarks").glob("*.py")):
        text = path.read_text()
        nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import | ast.ImportFrom)]
        imported = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
        imported |= {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
        if imported & scripts:
            assert "sys.path.insert(0, str(Path(__file__).parents[1]))" in text, path.name
