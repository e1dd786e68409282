"""The Space: its header, its command, and what its server refuses."""

import base64
import io
import json
import logging
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image


gradio = pytest.importorskip("gradio")
pytest.importorskip("kmedoids")

from fabrec_hf.cli import main  # noqa: E402
from support.space_client import running_space  # noqa: E402


ROOT = Path(__file__).parents[2]

if not (ROOT / "space").is_dir():
    pytest.skip("only in a checkout", allow_module_level=True)


def astronaut() -> bytes:
    return (ROOT / "examples/astronaut.jpg").read_bytes()


def test_the_header_is_that_of_a_gradio_space():
    text = (ROOT / "space/README.md").read_text()
    header = yaml.safe_load(text.split("---")[1])
    assert header["sdk"] == "gradio" and header["app_file"] == "app.py"
    assert re.fullmatch(r"6\.\d+\.\d+", header["sdk_version"])
    assert len(header["short_description"]) <= 60  # the Hub's limit
    assert f"gradio=={header['sdk_version']}" in (ROOT / "space/requirements.txt").read_text().split()
    assert gradio.__version__.split(".")[0] == header["sdk_version"].split(".")[0]
    for path in (ROOT / "space/examples").iterdir():
        assert f"`{path.name}`" in text, "where it comes from"
    assert "](../" not in text  # nothing above this folder is on the Hub
    for path in (ROOT / "space/examples").glob("*.jpg"):
        assert path.read_bytes() == (ROOT / "examples" / path.name).read_bytes()


def test_faces_are_found_over_http(space):
    path = space.upload(astronaut(), "me.jpg")
    message = space.detect({"path": path, "orig_name": "me.jpg"})
    assert message["success"], message
    assert "**1 face**" in json.dumps(message["output"])
    files = [entry["orig_name"] for entry in message["output"]["data"][-1]]
    assert files == ["me.json", "me.csv", "me.landmarks.png"]


@pytest.mark.parametrize(
    "path", ["/etc/passwd", str(ROOT / "examples/astronaut.jpg"), "../../../etc/passwd", "file:///etc/passwd"]
)
def test_no_path_of_a_request_is_opened(space, path):
    message = space.detect({"path": path, "orig_name": "a.jpg"})
    assert not message["success"]
    assert not {"root:", "Traceback", "fabrec-demo-"} & set(re.findall(r"root:|Traceback|fabrec-demo-", str(message)))


def test_no_other_host_is_asked_for_a_picture(space):
    """The address belongs to a port of this machine: a server must not be made to look at its own network."""
    asked = f"{space.url}/gradio_api/file=examples/astronaut.jpg"
    assert not space.detect({"path": asked, "url": asked, "orig_name": "a.jpg"})["success"]


def test_files_of_the_server_and_of_sessions_are_not_served(space):
    session = space.services.sessions.open(None)
    session.project.save()
    for path in ("/etc/passwd", session.folder / "project.json", ROOT / "pyproject.toml", ROOT / "README.md"):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{space.url}/gradio_api/file={path}")
        assert caught.value.code in (403, 404)


def test_mistakes_are_answered_in_one_line_and_failures_by_a_number(space, monkeypatch, caplog):
    path = space.upload(b"no picture", "bad.svg")
    message = space.detect({"path": path, "orig_name": "bad.svg"})
    assert "bad.svg is not a picture that can be read" in message["output"]["error"]
    # Gradio's own field would open these first, and answer with a bare "Error".
    for content in (b"some words, no picture", b"", astronaut()[:900]):
        message = space.detect({"path": space.upload(content, "notes.jpg"), "orig_name": "notes.jpg"})
        assert message["output"]["error"].startswith("notes.jpg is not a picture that can be read: send JPEG")
    wide = io.BytesIO()
    Image.new("1", (8000, 7000)).save(wide, "PNG")
    message = space.detect({"path": space.upload(wide.getvalue(), "wide.png"), "orig_name": "wide.png"})
    assert "8000 x 7000 pixels are more than 50 million" in message["output"]["error"]

    def fail(*_):
        raise RuntimeError("a secret of the server")

    monkeypatch.setattr(type(space.services.uploads), "read_picture", fail)
    with caplog.at_level(logging.ERROR):
        message = space.detect({"path": space.upload(astronaut(), "a.jpg"), "orig_name": "a.jpg"})
    assert re.search(r"Something failed on the server \(number [0-9a-f]{8}\)", message["output"]["error"])
    assert "secret" not in str(message) and "Traceback" not in str(message)
    assert "a secret of the server" in caplog.text  # but its owner can read it


def test_no_page_leaves_it_to_gradio_to_open_a_picture(space, tmp_path):
    """Which answers what is no picture with a bare "Error"."""
    (tmp_path / "notes.jpg").write_text("some words, no picture")
    payload = gradio.FileData(path=str(tmp_path / "notes.jpg"), orig_name="notes.jpg")
    fields = [block for block in space.app.blocks.values() if isinstance(block, gradio.Image)]
    taken = [field for field in fields if field.interactive is not False]
    assert {field.label for field in taken} >= {"Photograph", "From", "To"}
    assert [field.preprocess(payload) for field in taken] == [payload.path] * len(taken)
    assert [field.preprocess(None) for field in taken] == [None] * len(taken)


def test_a_frame_of_a_camera_is_answered_by_landmarks(space):
    (camera,) = (block for block in space.app.blocks.values() if getattr(block, "elem_id", None) == "camera")
    picture = "data:image/jpeg;base64," + base64.b64encode(astronaut()).decode()
    message = {"visit": "a secret word", "picture": picture, "first": True}
    body = {"data": message, "component_id": camera._id, "fn_name": "look", "session_hash": "abc"}
    request = urllib.request.Request(
        f"{space.url}/gradio_api/component_server/",
        json.dumps(body).encode(),
        {"Content-Type": "application/json"},
    )
    before = len(list(space.services.uploads.folder.rglob("*")))
    with urllib.request.urlopen(request) as answer:
        found = json.load(answer)
    assert found["word"] == "1 face." and len(found["faces"][0]["points"]) == 2 * 68
    nose = found["faces"][0]["points"][60:62]
    np.testing.assert_allclose(nose, [227, 131], atol=12)  # where the photograph, 512 px wide, shows its tip
    assert len(list(space.services.uploads.folder.rglob("*"))) == before  # no frame is kept


def test_files_that_are_too_large_are_refused(space):
    with pytest.raises(urllib.error.HTTPError) as caught:
        space.upload(bytes(space.services.limits.file_bytes + 1), "long.jpg")
    assert caught.value.code == 413


def test_only_the_detector_is_offered_to_other_programs(space):
    with urllib.request.urlopen(f"{space.url}/gradio_api/info") as answer:
        assert list(json.load(answer)["named_endpoints"]) == ["/detect"]


def test_nothing_of_the_page_comes_from_another_host(space):
    with urllib.request.urlopen(space.url) as answer:
        page = answer.read().decode()
    assert not re.search(r"""<(?:script|link|img)[^>]+(?:src|href)=["']?(?:https?:)?//(?!127\.0\.0\.1)""", page)
    assert 'analytics_enabled":false' in page.replace(" ", "")


def test_temporary_files_are_removed_and_sessions_stay(tmp_path):
    before = os.environ.get("GRADIO_TEMP_DIR")
    with running_space(tmp_path / "sessions") as running:
        folder = running.services.uploads.folder
        running.detect({"path": running.upload(astronaut(), "a.jpg"), "orig_name": "a.jpg"})
        running.services.sessions.open(None).project.save()
        assert any(folder.iterdir())
    assert not folder.parent.exists() and os.environ.get("GRADIO_TEMP_DIR") == before
    assert len(list((tmp_path / "sessions").iterdir())) == 1


def test_old_files_are_removed_and_examples_stay(space):
    """What the server does every minute with files of the last half hour, done to all of them."""
    from gradio.route_utils import delete_files_created_by_app

    example = space.services.examples[0]
    message = space.detect({"path": str(example), "orig_name": example.name})
    files = [Path(entry["path"]) for entry in message["output"]["data"][-1]]
    assert len(files) == 3 and all(file.is_file() for file in files)
    delete_files_created_by_app(space.app, None)
    assert not any(file.exists() for file in files)
    assert all(path.is_file() for path in space.services.examples)


def test_the_command_says_what_is_wrong(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for arguments, message in (
        (["--port", "70000"], "--port must lie between"),
        (["--model", "nothing", "--sessions", str(tmp_path / "s")], "No checkpoint 'nothing'"),
        (["--examples", str(tmp_path / "missing")], "no such file"),
        (["--sessions", str(tmp_path / "file")], "is not a folder"),
    ):
        assert main(["demo", *arguments]) == 2
        error = capsys.readouterr().err
        assert message in error and len(error.splitlines()) == 1


def test_the_space_runs_as_a_script(tmp_path):
    script = f"import runpy; runpy.run_path({str(ROOT / 'space/app.py')!r}, run_name='loaded')"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_token_is_no_part_of_what_is_kept(space):
    """The field is a password, and no event but the push gets it."""
    config = space.app.get_config_file()
    (field,) = [entry for entry in config["components"] if entry["props"].get("type") == "password"]
    users = [entry for entry in config["dependencies"] if field["id"] in entry["inputs"]]
    assert len(users) == 1 and users[0]["api_visibility"] == "private"
