"""Data sets and metrics on the Hub: published by the command, read by `load_dataset` and `evaluate.load`."""

import json

import numpy as np
import pytest

from fabrec_hf.cli import main
from fabrec_hf.data.face_set import find_face_set
from fabrec_hf.errors import DataError, HubError
from fabrec_hf.hub.contents import gather
from fabrec_hf.hub.publishing import push
from support.faces import draw_face
from support.hub_client import run_python


READ = """
import json, sys
import numpy as np
from datasets import load_dataset

def digest(row):
    picture = np.asarray(row["image"]).astype(int).sum().item() if "image" in row else None
    return {"points": row["landmarks"], "box": row["box"], "name": row["name"], "picture": picture}

def read(repository, commit):
    kept = load_dataset(repository)
    streamed = load_dataset(repository, streaming=True)
    return {
        "columns": kept["train"].column_names,
        "features": str(kept["train"].features["landmarks"]),
        "kept": {split: [digest(row) for row in rows] for split, rows in kept.items()},
        "streamed": {split: [digest(row) for row in rows] for split, rows in streamed.items()},
        "revision": len(load_dataset(repository, split="test", revision=commit)),
    }

print("FOUND" + json.dumps([read(*words) for words in zip(sys.argv[1::2], sys.argv[2::2])]))
"""


@pytest.fixture(scope="module")
def face_set(tmp_path_factory):
    """A user's own data: five faces to train on and three to test with, converted as docs/own-data.md says."""
    root = tmp_path_factory.mktemp("own")
    lines = ["image,split,left_x,left_y,right_x,right_y,box_x,box_y,box_width,box_height"]
    for seed in range(8):
        picture, points, box = draw_face(seed)
        picture.save(root / f"{seed}.png")
        numbers = (f"{value:.2f}" for value in (*points[:2].flatten(), *box))
        lines.append(",".join([f"{seed}.png", "train" if seed < 5 else "test", *numbers]))
    (root / "table.csv").write_text("\n".join(lines) + "\n")
    assert main(["convert", "csv", str(root / "table.csv"), str(root / "faces")]) == 0
    return root / "faces"


@pytest.fixture(scope="module")
def published(hub, face_set, tmp_path_factory):
    """What one process reads of both ways of publishing the same faces: whole, and annotations alone."""
    (whole,) = push(face_set, "faces/own-data", api=hub.api())
    (annotations,) = push(face_set, "faces/annotations", annotations_only=True, api=hub.api())
    words = ["faces/own-data", whole.commit, "faces/annotations", annotations.commit]
    return run_python(READ, *words, environment=hub.environment(tmp_path_factory.mktemp("home")))


def test_a_whole_data_set_loads_from_the_hub_and_streams(hub, face_set, published):
    files = set(hub.api().list_repo_files("faces/own-data", repo_type="dataset"))
    shards = {name for name in files if name.startswith("data/")}
    assert files - shards == {".gitattributes", "README.md", "face_set.json"} and len(shards) == 2
    found = published[0]
    assert found["kept"] == found["streamed"] and found["revision"] == 3
    assert [len(found["kept"][split]) for split in ("train", "test")] == [5, 3]
    for split, first in (("train", 0), ("test", 5)):
        for index, row in enumerate(found["kept"][split]):
            picture, points, _ = draw_face(first + index)
            assert row["picture"] == int(np.asarray(picture).astype(int).sum())
            assert sum(row["points"], []) == pytest.approx(points[:2].flatten(), abs=0.01)
    (again,) = push(face_set, "faces/own-data", api=hub.api())
    assert not again.changed


def test_an_annotation_only_data_set_has_no_pictures(hub, face_set, published):
    found = published[1]
    assert "image" not in found["columns"] and {"landmarks", "box", "name", "split"} <= set(found["columns"])
    assert "length=2" in found["features"] and found["kept"] == found["streamed"]
    assert [len(found["kept"][split]) for split in ("train", "test")] == [5, 3]
    for row, seed in zip(found["kept"]["test"], range(5, 8), strict=True):
        assert sum(row["points"], []) == pytest.approx(draw_face(seed)[1][:2].flatten(), abs=0.01)
    api, sizes = hub.api(), {}
    for name in ("faces/own-data", "faces/annotations"):
        sizes[name] = sum(entry.size for entry in api.list_repo_tree(name, "data", repo_type="dataset"))
    assert 0 < sizes["faces/annotations"] < sizes["faces/own-data"]


def test_the_card_of_annotations_says_so_below_its_title(face_set):
    with gather(face_set, "faces/annotations", annotations_only=True) as contents:
        text = contents.revisions["main"]["README.md"].read_text()
        assert text.partition("\n# ")[2].splitlines()[2].startswith("**Annotations only**")
        assert text.startswith("---\n") and "configs:" in text and "The license is that of the original data" in text


def test_pictures_of_published_sets_are_not_passed_on(face_set, tmp_path, capsys):
    folder = tmp_path / "theirs"
    (folder / "data").mkdir(parents=True)
    for file in face_set.rglob("*.*"):
        (folder / file.relative_to(face_set)).write_bytes(file.read_bytes())
    values = json.loads((folder / "face_set.json").read_text()) | {"kind": "wflw"}
    (folder / "face_set.json").write_text(json.dumps(values))
    assert main(["push", str(folder), "faces/wflw", "--dry-run"]) == 2
    assert "push the annotations alone (--annotations-only)" in capsys.readouterr().err
    assert main(["push", str(folder), "faces/wflw", "--dry-run", "--annotations-only"]) == 0
    assert "dataset faces/wflw@main: 4 files" in capsys.readouterr().out


def test_a_damaged_data_set_is_refused(face_set, tmp_path):
    find_face_set(face_set).write(tmp_path)
    with pytest.raises(DataError, match="is no whole data set"), gather(tmp_path, "faces/x"):
        pass
    with (
        pytest.raises(HubError, match="--annotations-only does not apply"),
        gather("nme", "a/nme", "main", None, True),
    ):
        pass


EVALUATE = """
import json
import evaluate
metric = evaluate.load("faces/landmark_nme", module_type="metric")
face = [[0.0, 0.0], [10.0, 0.0], [5.0, 5.0], [2.0, 8.0], [8.0, 8.0]]
moved = [[x + 1.0, y] for x, y in face]
print("FOUND" + json.dumps(metric.compute(predictions=[face, moved], references=[face, face], scheme="mtfl")))
"""


def test_a_metric_loads_from_its_space(hub, tmp_path):
    push("nme", "faces/landmark_nme", api=hub.api())
    files = hub.api().list_repo_files("faces/landmark_nme", repo_type="space")
    assert sorted(files) == [".gitattributes", "README.md", "landmark_nme.py"]
    found = run_python(EVALUATE, environment=hub.environment(tmp_path))
    # Half of the faces are off by 1 pixel, the eyes are 10 apart.
    assert found["nme"] == pytest.approx(5.0) and found["count"] == 2
    assert any("spaces/faces/landmark_nme/resolve" in line for line in hub.log())


def test_all_metrics_of_the_package_are_fit_to_be_spaces(hub):
    for name in ("nme", "failure_rate", "auc", "ced", "jitter", "face_landmarks"):
        (published,) = push(name, f"faces/{name}", api=hub.api())
        assert published.changed and published.files == 2
