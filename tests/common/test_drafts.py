"""Files and folders that appear whole or not at all, whoever writes them, and what a kill leaves of them."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fabrec_hf.common.drafts import PREFIX, Drafts, draft_of, remove_drafts, unfinished_folder
from fabrec_hf.common.output_folder import check_new_folder, take_place, write_files
from fabrec_hf.data.scheme_files import write_scheme
from fabrec_hf.errors import CheckpointError, DataError, FabRecError
from fabrec_hf.model.known_schemes import get_scheme


ROOT = Path(__file__).parents[2]


def names_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def test_files_and_folders_get_their_names_at_the_end(tmp_path):
    (tmp_path / "b.txt").write_text("old")
    with Drafts(tmp_path, "images/train", "b.txt") as drafts:
        drafts["images/train"].mkdir()
        (drafts["images/train"] / "a.png").write_bytes(b"pixels")
        drafts["b.txt"].write_text("new")
        assert (tmp_path / "b.txt").read_text() == "old" and not (tmp_path / "images").exists()
        hidden = [path for path in tmp_path.iterdir() if path.name != "b.txt"]
        assert len(hidden) == 2 and all(path.name.startswith(PREFIX) and not path.suffix for path in hidden)
    assert names_in(tmp_path) == ["b.txt", "images", "images/train", "images/train/a.png"]
    assert (tmp_path / "b.txt").read_text() == "new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_leaves_what_was_there_and_nothing_else(tmp_path, error):
    (tmp_path / "b.txt").write_text("old")
    with pytest.raises(error), Drafts(tmp_path, "images/train", "b.txt") as drafts:
        drafts["images/train"].mkdir()
        (drafts["images/train"] / "a.png").write_bytes(b"pixels")
        drafts["b.txt"].write_text("half")
        raise error
    with pytest.raises(error), draft_of(tmp_path / "b.txt") as draft:
        draft.write_text("half")
        raise error
    with pytest.raises(error), unfinished_folder(tmp_path / "out") as unfinished:
        (unfinished / "half.txt").write_text("half")
        raise error
    assert names_in(tmp_path) == ["b.txt", "out"] and (tmp_path / "b.txt").read_text() == "old"


def test_what_was_not_written_is_an_error_and_what_comes_after_it_is_gone(tmp_path):
    with pytest.raises(FileNotFoundError), Drafts(tmp_path, "a", "missing", "c") as drafts:
        drafts["a"].write_text("a")
        drafts["c"].write_text("c")
    assert names_in(tmp_path) == ["a"]


def test_two_writers_of_one_file_do_not_meet(tmp_path):
    with draft_of(tmp_path / "a.txt") as one, draft_of(tmp_path / "a.txt") as other:
        one.write_text("one")
        other.write_text("the other")
    assert names_in(tmp_path) == ["a.txt"] and (tmp_path / "a.txt").read_text() == "one"  # which ends last


def test_writers_leave_nothing_on_a_full_disk(tmp_path, monkeypatch):
    """The places of these writers are taken over by one call, which fails here when everything is written."""
    for name in ("a.txt", "cat.yaml"):
        (tmp_path / name).write_text("old")

    def fail(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(FabRecError, match=r"^cannot write to .*: No space left on device\.$"):
        write_files(tmp_path, {"a.txt": b"new", "b.txt": b"new"})
    with pytest.raises(OSError, match="No space left"):
        write_scheme(get_scheme("mtfl"), tmp_path / "cat.yaml")
    assert names_in(tmp_path) == ["a.txt", "cat.yaml"]
    assert {path.read_text() for path in tmp_path.iterdir()} == {"old"}


def test_a_kill_leaves_the_old_file_and_a_draft_that_can_be_removed(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    (tmp_path / ".partial").write_text("of somebody else")
    script = f"""
import os, signal
from pathlib import Path
from fabrec_hf.common.drafts import Drafts, unfinished_folder
folder = Path({str(tmp_path)!r})
with Drafts(folder, "a.txt", "images") as drafts, unfinished_folder(folder) as unfinished:
    drafts["a.txt"].write_text("half")
    for path in (drafts["images"], unfinished / "more"):
        path.mkdir()
        (path / "b.png").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", script], cwd=ROOT)
    assert killed.returncode == -signal.SIGKILL
    left = [path for path in tmp_path.iterdir() if path.name.startswith(PREFIX)]
    assert len(left) == 3 and (tmp_path / "a.txt").read_text() == "old"
    remove_drafts(tmp_path)
    assert names_in(tmp_path) == [".partial", "a.txt"]


def test_a_new_folder_may_be_empty_and_nothing_else(tmp_path):
    finished, empty, full, file = (tmp_path / name for name in ("finished", "empty", "full", "file"))
    for folder in (finished, empty, full):
        folder.mkdir()
    for path in (finished / "a.txt", full / "b.txt", file):
        path.touch()
    for place in (full, file):
        with pytest.raises(DataError, match=f"{place} exists and is not empty; name a new folder."):
            check_new_folder(place)
    with pytest.raises(CheckpointError, match="is not empty"):
        check_new_folder(full, CheckpointError)
    check_new_folder(empty)
    take_place(finished, empty)
    check_new_folder(finished)
    take_place(empty, finished)
    assert names_in(tmp_path) == ["file", "finished", "finished/a.txt", "full", "full/b.txt"]
