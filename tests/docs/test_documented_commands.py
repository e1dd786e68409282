"""The commands of the documentation run as they stand, in a folder where the files that they name exist."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fabrec_hf.cli import main
from fabrec_hf.inference.video_files import VideoWriter
from support.documents import PAGES, ROOT, commands
from support.faces import draw_face


pytest.importorskip("av")
pytest.importorskip("datasets")
pytest.importorskip("onnx")

ELSEWHERE = {
    "push": "tests/docs/test_documented_hub.py runs it",
    "demo": "it serves until it is stopped; tests/demo runs it",
    "convert-original": "it takes the authors' file; tests/export makes one like it",
}
"""Commands that are not run here, and why."""

NEEDS_A_CAMERA = ["detect", "0"]
"""And a screen; tests/inference/test_camera.py runs it with stand-ins."""

SHORTER = {"fit": ["--effort", "0.01"], "robustness": ["--limit", "3"]}
"""What is added to a command so that it ends in seconds."""

PROMISED = {
    "detect photo.jpg": ["photo.landmarks.png", "photo.json", "photo.csv"],
    "detect clip.mp4": ["clip.landmarks.mp4", "clip.json", "clip.csv"],
    "select photographs": ["selected.png", "selected.csv"],
    "fit annotated": ["held_out.png", "config.json", "model.safetensors"],
    "evaluate": ["results.json", "table.md", "table.tex", "ced.png", "confidence.png", "failures.png"],
    "export --format onnx": ["model.onnx", "config.json", "preprocessor_config.json"],
    "export --model detector --format delta": ["delta.safetensors", "config.json"],
    "export --model detector --format checkpoint": ["config.json", "preprocessor_config.json"],
}
"""Files that the pages promise of a command with an output folder."""


def write_annotated_faces() -> None:
    """Write twelve drawn faces of five points: `.pts` files in `annotated`, and the same as COCO keypoints."""
    Path("annotated").mkdir()
    names = ["left_eye", "right_eye", "nose", "left_mouth", "right_mouth"]
    coco = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "face", "keypoints": names}]}
    for index in range(12):
        image, points, box = draw_face(index)
        image.save(f"annotated/{index}.png")
        lines = "\n".join(f"{x + 1} {y + 1}" for x, y in points)
        Path(f"annotated/{index}.pts").write_text(f"version: 1\nn_points: 5\n{{\n{lines}\n}}\n")
        size = {"width": image.width, "height": image.height}
        coco["images"].append({"id": index, "file_name": f"annotated/{index}.png", **size})
        keypoints = [value for x, y in points.tolist() for value in (x, y, 2)]
        face = {"id": index, "image_id": index, "category_id": 1, "bbox": box, "num_keypoints": 5}
        coco["annotations"].append({**face, "keypoints": keypoints})
    Path("annotations.json").write_text(json.dumps(coco))


def write_photographs() -> None:
    """Write a photograph, a clip of it, and a folder of ten."""
    Path("photographs").mkdir()
    for name in ("astronaut", "grace_hopper"):
        picture = Image.open(ROOT / f"examples/{name}.jpg")
        for index in range(5):
            picture.crop((8 * index, 8 * index, *picture.size)).save(f"photographs/{name}-{index}.jpg")
    shutil.copy(ROOT / "examples/astronaut.jpg", "photo.jpg")
    face = Image.open("photo.jpg").convert("RGB").crop((100, 20, 340, 220))
    writer = VideoWriter(Path("clip.mp4"), 25.0)
    for index in range(3):
        writer.write(np.asarray(face), index / 25.0)
    writer.close()


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with the files that the pages name and no command makes."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("workplace")
        patch.chdir(folder)
        write_annotated_faces()
        write_photographs()
        yield folder


def output_of(words: list[str]) -> Path | None:
    """Where a command writes to, if anywhere."""
    if words[0] == "convert":
        return Path(words[3])
    return Path(words[words.index("--output") + 1]) if "--output" in words else None


def clear(path: Path | None) -> None:
    """Remove what an earlier command has left where the next one writes."""
    if path is not None and path.is_dir():
        shutil.rmtree(path)
    elif path is not None:
        path.unlink(missing_ok=True)


def distinct_commands() -> list[list[str]]:
    """Every command of the package on the pages once, in their order, without those that need what is not at hand."""
    shown = [words[1:] for page in PAGES for words in commands(page) if words[0] == "fabrec"]
    distinct = [list(words) for words in dict.fromkeys(map(tuple, shown))]
    distinct = [words for words in distinct if words != NEEDS_A_CAMERA]
    return [words for words in distinct if words[0] not in ELSEWHERE and not {"300w", "wflw"} & {*words}]


def check_output(words: list[str], output: Path | None) -> None:
    if output is not None:
        assert output.is_file() or any(output.iterdir()), words
    for start, names in PROMISED.items():
        if output is not None and " ".join(words).startswith(start):
            for name in names:
                assert (output / name).stat().st_size > 0, (words, name)
    if output is not None and words[:2] == ["detect", "photo.jpg"]:
        landmarks = list(csv.DictReader((output / "photo.csv").open()))
        assert len(landmarks) == (5 if "detector" in words else 68)


def test_commands_do_as_they_stand(workplace, few_crops, capsys):
    ran = set()
    for words in distinct_commands():
        clear(output_of(words))
        code = main([*words, *SHORTER.get(words[0], [])])
        streams = capsys.readouterr()
        assert code == 0, f"fabrec {' '.join(words)}: {streams.err}"
        check_output(words, output_of(words))
        if "--json" in words:
            (photograph,) = json.loads(streams.out)
            assert len(photograph["faces"][0]["keypoints"]) == 68
            assert photograph["faces"][0].get("is_face", True), "the boxes of an example hold the face"
        ran.add(words[0])
    assert ran == {"card", "completion", "convert", "detect", "evaluate", "export", "fit", "robustness", "select"}
