"""The files of a user: which are pictures, what is said of the others, and what cannot be opened."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fabrec_hf.data import picture_files
from fabrec_hf.data.picture_files import PICTURE_SUFFIXES, is_picture, skipped_files
from fabrec_hf.errors import BoxError, ImageError
from fabrec_hf.inference import input_files
from fabrec_hf.inference.input_files import collect_inputs, distinct_names, open_picture, parse_boxes
from fabrec_hf.model.image_inputs import is_heic
from support.warm_processes import run_code


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("a.MPO", "JPEG"), ("a.jfif", "JPEG"), ("a.JPE", "JPEG"), ("a.jp2", "JPEG2000"), ("a.tga", "TGA"),
        ("a.gif", "GIF"), ("a.tiff", "TIFF"), ("a.ppm", "PPM"), ("a.dib", "BMP"), ("a.webp", "WEBP"),
    ],
)  # fmt: skip
def test_every_suffix_of_a_picture_is_found_and_opened(tmp_path, name, form):
    Image.new("RGB", (20, 12), (200, 100, 50)).save(tmp_path / name, form)
    assert collect_inputs([tmp_path]) == [tmp_path / name]
    picture = open_picture(tmp_path / name)
    assert picture.size == (20, 12)
    assert np.abs(np.asarray(picture.convert("RGB"), dtype=int) - [200, 100, 50]).max() < 12


def test_what_is_not_read_is_said(tmp_path):
    for name in ("a.png", "a.landmarks.png", "b.txt", "c.TXT", "raw.cr2", "README", ".hidden.txt"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "more").mkdir()
    said = []
    assert collect_inputs([tmp_path], said.append) == [tmp_path / "a.png"]
    assert said == [
        f"{tmp_path}: not read, since they are neither pictures nor videos: 2 .txt, 1 without a suffix, 1 .cr2; "
        "1 folders in it are not searched."
    ]
    (tmp_path / "a.png").unlink()
    with pytest.raises(ImageError, match=r"no picture or video in this folder; .*\.heic.* 2 \.txt"):
        collect_inputs([tmp_path])
    (tmp_path / "clean").mkdir()
    (tmp_path / "clean" / "a.jpg").write_bytes(b"")
    assert collect_inputs([tmp_path / "clean"], said.append) and len(said) == 1


def test_addresses_are_not_taken_for_files():
    for address in ("https://example.org/a.jpg", "HTTP://example.org/a.jpg"):
        with pytest.raises(ImageError) as error:
            collect_inputs([address])
        assert (
            str(error.value) == f"{address}: addresses are not opened here; download the picture, and give the file."
        )


def test_the_table_of_suffixes_is_one():
    from fabrec_hf.data.formats.layouts import find_pictures

    assert find_pictures.__module__ and is_picture("a/B.HeIc") and not is_picture("heic") and not is_picture("a.mp4")
    assert all(suffix == suffix.lower() and suffix[0] == "." for suffix in PICTURE_SUFFIXES)
    assert skipped_files(["a.TXT", "b.txt", ".c", "d"]) == "2 .txt, 1 without a suffix"


def test_large_pictures_are_read_up_to_the_limit(tmp_path, monkeypatch):
    """In a process of its own, where Python's warnings go to the standard error as they do for a user."""
    Image.new("1", (10_000, 9_500)).save(tmp_path / "95.png")  # Pillow itself warns from 89 megapixels on
    script = (
        "import sys; from fabrec_hf.inference.input_files import open_picture; from pathlib import Path\n"
        "print(open_picture(Path(sys.argv[1])).size)"
    )
    done = run_code(script, tmp_path / "95.png")
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "(10000, 9500)", "")
    assert Image.MAX_IMAGE_PIXELS == 150_000_000  # Pillow refuses from twice that on
    monkeypatch.setattr(input_files, "MEGAPIXELS", 90)
    with pytest.raises(ImageError, match="it has more than 300 megapixels; make it smaller first"):
        open_picture(tmp_path / "95.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40_000_000)
    with pytest.raises(ImageError, match="it has more than 300 megapixels; make it smaller first"):
        open_picture(tmp_path / "95.png")


def test_heic_without_its_reader_names_the_extra(tmp_path, monkeypatch):
    head = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"
    assert is_heic(head) and is_heic(b"\0\0\0\x18ftypmif1") and not is_heic(b"\xff\xd8\xff\xe0 JFIF heic")
    (tmp_path / "IMG_0001.HEIC").write_bytes(head)
    (tmp_path / "renamed.jpg").write_bytes(head)
    monkeypatch.setattr(input_files, "heic_is_readable", lambda: False)
    assert len(collect_inputs([tmp_path])) == 2
    for path in collect_inputs([tmp_path]):
        with pytest.raises(ImageError, match=r"pip install 'fabrec-hf\[heic\]'"):
            open_picture(path)


@pytest.mark.skipif(importlib.util.find_spec("pillow_heif") is None, reason="needs the extra heic")
def test_heic_is_read(tmp_path):
    assert picture_files.heic_is_readable()
    Image.new("RGB", (64, 48), (200, 100, 50)).save(tmp_path / "IMG_0001.HEIC", format="HEIF", quality=95)
    picture = open_picture(tmp_path / "IMG_0001.HEIC")
    assert picture.size == (64, 48)
    assert np.abs(np.asarray(picture.convert("RGB"), dtype=int) - [200, 100, 50]).max() < 12


def test_names_of_results_do_not_collide():
    paths = [Path(name) for name in ("a/x.jpg", "b/x.jpg", "x.png", "x-2.png", "y.png")]
    assert distinct_names(paths) == ["x", "x-3", "x-4", "x-2", "y"]


def test_collect_inputs_takes_each_once_and_no_overlays(tmp_path):
    for name in ("b.JPG", "a.png", "a.landmarks.png", "a.json", ".hidden.png"):
        (tmp_path / name).touch()
    assert [path.name for path in collect_inputs([tmp_path / "b.JPG", tmp_path])] == ["b.JPG", "a.png"]


def test_parse_boxes():
    assert parse_boxes(["1,2,3,4", " -1.5,0,1e2,7"]) == [(1, 2, 3, 4), (-1.5, 0, 100, 7)]
    with pytest.raises(BoxError, match="not a box"):
        parse_boxes(["1,2,3,4,5"])
