"""What visitors of the demonstration may send, and what is kept of them."""

import io
import os
import time

import pytest
from PIL import Image

from fabrec_hf.demo.annotation import AnnotatedFace
from fabrec_hf.demo.sessions import SessionStore
from fabrec_hf.demo.uploads import Limits, Uploads, checked_list, decode_picture, display_name
from fabrec_hf.errors import CheckpointError, DataError, ImageError


LIMITS = Limits(file_bytes=50_000, pixels=10_000, photographs=3, session_bytes=60_000, checkpoints=1, sessions=2)


def png(width=40, height=20, color=(200, 10, 10), **options) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), color).save(file, options.pop("format", "PNG"), **options)
    return file.getvalue()


@pytest.fixture
def uploads(tmp_path):
    (tmp_path / "web").mkdir()
    return Uploads(tmp_path / "web", LIMITS)


def put(uploads, name, content=None):
    path = uploads.folder / name
    path.write_bytes(png() if content is None else content)
    return str(path)


def test_only_uploads_are_opened(uploads, tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(png())
    (uploads.folder / "link.png").symlink_to(secret)
    for path in (secret, uploads.folder / "link.png", f"{uploads.folder}/../secret.png", uploads.folder, "/dev/zero"):
        with pytest.raises(ImageError, match="Only files that were uploaded"):
            uploads.read_picture(path)
    for path in (uploads.folder / "missing.png", "bad\0name"):
        with pytest.raises(ImageError, match="gone"):
            uploads.read_picture(path)
    assert uploads.read_picture(put(uploads, "fine.png")).size == (40, 20)


def test_large_files_and_pictures_are_refused(uploads):
    with pytest.raises(ImageError, match="larger than"):
        uploads.read_picture(put(uploads, "long.png", bytes(LIMITS.file_bytes + 1)))
    with pytest.raises(ImageError, match="200 x 200 pixels are more"):
        uploads.read_picture(put(uploads, "wide.png", png(200, 200)))
    with pytest.raises(ImageError, match="too few"):
        uploads.read_picture(put(uploads, "thin.png", png(40, 4)))


@pytest.mark.parametrize("content", [b"", b"no picture", png()[:50], b"<svg xmlns='http://www.w3.org/2000/svg'/>"])
def test_what_is_no_picture_is_refused_in_words(content):
    with pytest.raises(ImageError, match="^face.png is not a picture that can be read") as caught:
        decode_picture(content, "face.png", LIMITS)
    assert "\n" not in str(caught.value)


def test_pictures_are_turned_upright_and_shrunk():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held on its side
    content = png(80, 40, format="JPEG", exif=exif)
    photograph = decode_picture(content, "a.jpg", LIMITS, side=20)
    assert photograph.size == (40, 80) and photograph.image.size == (10, 20) and photograph.scale == 4.0


def test_what_is_transparent_is_black():
    file = io.BytesIO()
    Image.new("RGBA", (10, 10), (255, 255, 255, 0)).save(file, "PNG")
    assert decode_picture(file.getvalue(), "a.png", LIMITS).image.getpixel((5, 5)) == (0, 0, 0)


@pytest.mark.parametrize(
    ("name", "shown"),
    [("../../etc/passwd", "passwd"), ("C:\\me\\é.jpg", "é.jpg"), ("a<b>\n.png", "a_b__.png"), ("..", "picture")],
)
def test_names_are_made_harmless(name, shown):
    assert display_name(name) == shown


def test_counts_are_limited():
    with pytest.raises(DataError, match="Choose photographs first"):
        checked_list(None, 3)
    with pytest.raises(DataError, match="4 files are more than the 3"):
        checked_list(["a"] * 4, 3)


def test_sessions_are_found_by_their_key_alone(tmp_path):
    store = SessionStore(tmp_path / "sessions", LIMITS)
    session = store.open(None)
    session.project.add_faces([AnnotatedFace("a.png", "a.png", (0, 0, 9, 9))])
    assert store.open(session.key) is session
    again = SessionStore(tmp_path / "sessions", LIMITS).open(session.key)  # another process
    assert again.project.faces == session.project.faces
    (tmp_path / "outside").mkdir()
    for key in ("", "../outside", session.key[:-1], session.key + "/", "A" * 43, 7, {"path": "x"}):
        other = SessionStore(tmp_path / "sessions", LIMITS).open(key)
        assert other.key != key and not other.project.faces


def test_old_sessions_are_removed(tmp_path):
    store = SessionStore(tmp_path, LIMITS, max_age=100)
    session = store.open(None)
    session.project.save()
    for path in (session.folder / "project.json", session.folder):
        os.utime(path, (time.time() - 200,) * 2)
    fresh = SessionStore(tmp_path, LIMITS, max_age=100)
    assert fresh.open(session.key).key != session.key
    assert not session.folder.exists()


def test_those_who_only_look_give_way_and_those_who_work_do_not(tmp_path):
    store = SessionStore(tmp_path, LIMITS)
    first, second = store.open(None), store.open(None)
    first.project.save()
    third = store.open(None)
    assert store.open(second.key).key != second.key  # had kept nothing
    assert store.open(first.key) is first
    third.project.save()
    store.open(None).project.save()
    with pytest.raises(DataError, match="come back later"):
        store.open(None)


def test_a_damaged_file_is_put_aside(tmp_path):
    store = SessionStore(tmp_path, LIMITS)
    session = store.open(None)
    session.project.save()
    (session.folder / "project.json").write_text("{")
    again = SessionStore(tmp_path, LIMITS).open(session.key)
    assert again.project.faces == [] and (session.folder / "project.damaged.json").read_text() == "{"


def test_photographs_are_kept_as_they_are_unless_they_are_turned(tmp_path, uploads):
    session = SessionStore(tmp_path / "s", LIMITS).open(None)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "where I live"
    turned = png(40, 20, format="JPEG", exif=exif)
    paths = [put(uploads, "a.png"), put(uploads, "b.jpg", turned), put(uploads, "c.png", b"nothing")]
    kept, problems = session.add_photographs(paths, uploads)
    assert [name for _, name in kept] == ["a.png", "b.jpg"] and problems[0].startswith("c.png is not a picture")
    assert (session.photographs / kept[0][0]).read_bytes() == png()
    upright = Image.open(session.photographs / kept[1][0])
    assert upright.size == (20, 40) and not upright.getexif()
    with pytest.raises(DataError, match="holds 3 photographs"):
        session.add_photographs(paths[:2], uploads)
    session.clear()
    assert not session.folder.exists()


def test_uploaded_checkpoints_are_few(tmp_path):
    session = SessionStore(tmp_path, LIMITS).open(None)
    files = {"config.json": b"{}"}
    folder = session.add_checkpoint("../one", files)
    assert folder.parent == session.folder / "uploaded" and list(session.checkpoints()) == ["uploaded: one"]
    session.add_checkpoint("one", files)  # the same again
    with pytest.raises(CheckpointError, match="1 uploaded"):
        session.add_checkpoint("two", files)
    session.drop_checkpoint(folder)
    assert session.checkpoints() == {}
