"""The demonstration as a Space: what is sent, what it starts from, and that it needs nothing but its own folder."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import fabrec_hf
from fabrec_hf.cli import main
from fabrec_hf.errors import HubError
from fabrec_hf.hub import space as space_module
from fabrec_hf.hub.publishing import push_space
from fabrec_hf.hub.space import space_files


ROOT = Path(__file__).parents[2]
PACKAGE = Path(fabrec_hf.__file__).parent

if not (ROOT / "space").is_dir():
    pytest.skip("only in a checkout", allow_module_level=True)


@pytest.fixture
def small_space(monkeypatch, tmp_path):
    """The Space without its weights, which are 50 MB."""
    light = {name: path for name, path in space_files().items() if "/weights/" not in name}
    monkeypatch.setattr("fabrec_hf.hub.publishing.space_files", lambda: light)
    return light


def test_the_space_is_the_app_with_the_package_beside_it():
    files = space_files()
    assert {"app.py", "README.md", "requirements.txt", "LICENSE", "examples/astronaut.jpg"} <= set(files)
    sources = {f"fabrec_hf/{path.relative_to(PACKAGE).as_posix()}" for path in PACKAGE.rglob("*.py")}
    assert sources <= set(files)
    weights = {name for name in files if name.endswith("/model.safetensors")}
    assert "fabrec_hf/weights/3fabrec-mesh/model.safetensors" in weights
    assert {"fabrec_hf/demo/face_board.js", "fabrec_hf/evaluation/published_results.json"} <= set(files)
    assert not [name for name in files if "__pycache__" in name or "/." in name or name.startswith(".")]
    assert all(path.is_file() for path in files.values())


def test_its_requirements_are_those_of_the_package():
    tomllib = pytest.importorskip("tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert extras["demo"] == ["fabrec-hf[train,heic]", "gradio>=6.0"]
    header = yaml.safe_load((ROOT / "space/README.md").read_text().split("---")[1])
    wanted = {*project["dependencies"], *extras["train"], *extras["heic"], f"gradio=={header['sdk_version']}"}
    # While a Space is built, only this file is there: nothing in it may be a path.
    assert set((ROOT / "space/requirements.txt").read_text().split()) == wanted


def test_it_is_pushed_as_a_gradio_space_in_one_commit(hub, small_space):
    published = push_space("alice/landmarks", api=hub.api())
    assert published.changed and published.files == len(small_space)
    sent = set(hub.api().list_repo_files("alice/landmarks", repo_type="space"))
    assert sent == {*small_space, ".gitattributes"}
    assert not push_space("alice/landmarks", api=hub.api()).changed
    with pytest.raises(HubError, match="may not write to faces/theirs"):
        push_space("faces/theirs", api=hub.api("stranger"))


def test_the_folder_on_this_machine_starts_alone(tmp_path, capsys):
    folder = tmp_path / "space"
    assert main(["push", "--space", "alice/landmarks", "--output", str(folder)]) == 0
    assert capsys.readouterr().out == f"The Space lies in {folder}. Nothing was sent.\n"
    script = "import fabrec_hf, fabrec_hf.demo.zero_gpu as g; print(fabrec_hf.__file__); print(g.borrows_gpu())"
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True)
    assert done.stdout.splitlines() == [str(folder / "fabrec_hf/__init__.py"), "False"], done.stderr
    weights = "fabrec_hf/weights/3fabrec-mesh/model.safetensors"
    assert (folder / weights).read_bytes() == (ROOT / weights).read_bytes()
    assert main(["push", "--space", "alice/landmarks", "--output", str(folder)]) == 2
    assert "is not empty; name a new folder" in capsys.readouterr().err


def test_a_dry_run_lists_it(capsys):
    assert main(["push", "--space", "alice/landmarks", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    count = len(space_files())
    assert re.match(rf"space alice/landmarks@main: {count} files, [\d,]+ bytes\n", printed)
    assert printed.endswith("Nothing was sent.\n")
    assert main(["push", "--space", "alice/landmarks", "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["revisions"]["main"]["app.py"] == (ROOT / "space/app.py").stat().st_size


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nme", "alice/nme", "--space", "alice/x"], "SOURCE and REPO means nothing"),
        (["--space", "alice/x", "--annotations-only"], "--annotations-only means nothing"),
        (["--space", "alice/x", "--revision", "other"], "--revision means nothing"),
        (["--space", "alice/x/y"], "cannot be the name of a repository"),
        ([], "fabrec push SOURCE REPO, or fabrec push --space REPO"),
        (["nme"], "fabrec push SOURCE REPO, or fabrec push --space REPO"),
        (["nme", "alice/nme", "--output", "there"], "--output is for --space"),
    ],
)
def test_mistakes_are_one_line(words, message, capsys):
    assert main(["push", *words]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


def test_without_the_app_it_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(space_module, "PACKAGE", tmp_path / "site" / "fabrec_hf")
    with pytest.raises(HubError, match="lacks the app"):
        space_files()


def test_an_installed_package_finds_the_app_inside_itself(monkeypatch, tmp_path):
    package = tmp_path / "fabrec_hf"
    for name in ("__init__.py", "demo/space/app.py", "demo/space/requirements.txt", "demo/space/LICENSE"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(name)
    monkeypatch.setattr(space_module, "PACKAGE", package)
    assert list(space_files()) == ["LICENSE", "app.py", "fabrec_hf/__init__.py", "requirements.txt"]
