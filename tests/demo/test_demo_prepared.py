"""The page Teach with the photographs of a folder: what is taken of it, and that it goes on where it was left."""

import csv
import json
import logging
import urllib.request
from pathlib import Path

import pytest
from PIL import Image


pytest.importorskip("gradio")
pytest.importorskip("kmedoids")

from fabrec_hf.cli import main  # noqa: E402
from fabrec_hf.demo.prepared import folder_to_annotate, prepare_session  # noqa: E402
from fabrec_hf.demo.sessions import SessionStore  # noqa: E402
from fabrec_hf.demo.uploads import Limits, Uploads  # noqa: E402
from fabrec_hf.errors import DataError, FabRecError  # noqa: E402
from support.space_client import SpaceClient, running_space  # noqa: E402


class Finder:
    """Finds one face in every picture, and remembers the pictures' sizes."""

    def __init__(self):
        self.asked = []

    def detect(self, image):
        self.asked.append(image.size)
        return [(5.0, 6.0, 20.0, 21.0)]


@pytest.fixture
def place(tmp_path):
    """Where a demonstration keeps its sessions, and where it opens files."""
    (tmp_path / "web").mkdir()
    limits = Limits()

    def opened(wanted, finder):
        return prepare_session(
            wanted, SessionStore(tmp_path / "sessions", limits), Uploads(tmp_path / "web", limits), finder
        )

    return opened


def save_pictures(folder: Path, names, start=40):
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        Image.new("RGB", (start + number, 40), (number, 90, 60)).save(folder / name)


def selection(folder: Path):
    """A folder as `fabrec select --output` writes it, of pictures two of which are called alike."""
    save_pictures(folder / "pictures", ["a.png", "a-2.png", "b.png"])
    with (folder / "selected.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file", "x", "y", "width", "height", "share"])
        writer.writerow(["here/a.png", 1, 2, 30, 31, 0.5])
        writer.writerow(["there/a.png", 3, 4, 20, 22, 0.3])
        writer.writerow(["there/b.png", 5, 6, 10, 11, 0.1])
        writer.writerow(["here/a.png", 7, 8, 9, 10, 0.1])
    return folder


def test_the_faces_that_select_chose_are_taken(tmp_path, place):
    finder = Finder()
    session = place(folder_to_annotate(selection(tmp_path / "chosen"), 200), finder)
    boxes = sorted((face.name, face.box) for face in session.project.faces)
    assert boxes == [
        ("a-2.png", (3, 4, 20, 22)), ("a.png", (1, 2, 30, 31)), ("a.png", (7, 8, 9, 10)), ("b.png", (5, 6, 10, 11)),
    ]  # fmt: skip
    assert finder.asked == []  # they are known
    assert {session.photograph(face).size for face in session.project.faces} == {(40, 40), (41, 40), (42, 40)}
    assert not any((tmp_path / "web").iterdir()), "no copy is left where uploads are"


def test_what_select_writes_is_what_is_read(tmp_path, place):
    """By the command itself, whose copies have names of their own."""
    for folder, name in (("one", "astronaut"), ("two", "grace_hopper")):
        (tmp_path / folder).mkdir()
        examples = Path(__file__).parents[2] / "space/examples"
        (tmp_path / folder / "face.jpg").write_bytes((examples / f"{name}.jpg").read_bytes())
    folders = [str(tmp_path / "one"), str(tmp_path / "two")]
    assert main(["select", *folders, "--count", "2", "--output", str(tmp_path / "chosen")]) == 0
    session = place(folder_to_annotate(tmp_path / "chosen", 200), None)  # nothing is left to find
    found = {face.name: (session.photograph(face).size, face.box) for face in session.project.faces}
    rows = list(csv.DictReader((tmp_path / "chosen/selected.csv").open()))
    boxes = {Path(row["file"]).parent.name: float(row["x"]) for row in rows}
    assert {name: size for name, (size, _) in found.items()}.keys() == {"face.jpg", "face-2.jpg"}
    by_size = {size: box[0] for size, box in found.values()}
    assert by_size == {(512, 512): boxes["one"], (512, 600): boxes["two"]}


def test_any_folder_goes_on_where_it_was_left(tmp_path, place, caplog):
    folder, finder, said = tmp_path / "photos", Finder(), []
    save_pictures(folder, ["a.png", "b.png"])
    (folder / "notes.txt").write_text("no picture")
    (folder / "fake.jpg").write_text("no picture either")
    with caplog.at_level(logging.WARNING):
        session = place(folder_to_annotate(folder, 200, said.append), finder)
    assert [face.name for face in session.project.faces] == ["a.png", "b.png"] and finder.asked == [(40, 40), (41, 40)]
    assert "fake.jpg is not a picture that can be read: send JPEG, PNG or WebP." in caplog.text
    assert said == [f"{folder}: not read, since they are neither pictures nor videos: 1 .txt."]
    session.project.set_names(["nose"])
    session.project.choose([0, 1])
    session.project.put(9, 8)
    save_pictures(folder, ["c.png"], start=70)
    again = place(folder_to_annotate(folder, 200), finder)
    assert again is not session and again.key == session.key
    assert [face.name for face in again.project.faces] == ["a.png", "b.png", "c.png"]
    assert again.project.faces[0].points == ((9.0, 8.0),) and finder.asked[2:] == [(70, 40)]
    save_pictures(tmp_path / "others", ["a.png"])
    assert place(folder_to_annotate(tmp_path / "others", 200), finder).key != session.key


def test_what_is_no_such_folder_is_one_line(tmp_path, capsys):
    save_pictures(tmp_path / "many", ["a.png", "b.png", "c.png"])
    with pytest.raises(DataError, match=r"holds 3 photographs, and the page takes 2: choose by fabrec select"):
        folder_to_annotate(tmp_path / "many", 2)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FabRecError, match="no picture or video in this folder"):
        folder_to_annotate(tmp_path / "empty", 2)
    damaged = selection(tmp_path / "damaged") / "selected.csv"
    damaged.write_text("file,x\na.png,1\n")
    with pytest.raises(DataError, match=r"selected\.csv is not the table that fabrec select writes"):
        folder_to_annotate(tmp_path / "damaged", 200)
    assert main(["demo", "--annotate", str(tmp_path / "missing"), "--sessions", str(tmp_path / "s")]) == 2
    said = capsys.readouterr().err
    assert "is no folder: name one with the photographs to annotate" in said and said.count("\n") == 1


def test_everybody_finds_them_on_the_page_teach(tmp_path):
    wanted = folder_to_annotate(selection(tmp_path / "chosen"), 200)
    with running_space(tmp_path / "sessions", annotate=wanted) as space:
        with urllib.request.urlopen(f"{space.url}/config") as answer:
            config = json.load(answer)
        (tabs,) = [part for part in config["components"] if part["type"] == "tabs" and part["props"].get("selected")]
        assert tabs["props"]["selected"] == "teach"
        (sliders,) = [
            part["props"] for part in config["components"] if part["props"].get("label") == "Faces to annotate"
        ]
        assert sliders["value"] == 4
        (load,) = [entry for entry in config["dependencies"] if entry["targets"][0][1] == "load"]
        own = space.services.sessions.open(None).key
        message = SpaceClient(space.url).ask(load["id"], [own])
        assert message["success"], message
        kept, key, *shown = message["output"]["data"]
        assert "3 photographs, 4 faces." in json.dumps(shown)
        assert own not in json.dumps(message["output"]) and kept == {"__type__": "update"}
